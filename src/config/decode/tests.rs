use super::*;
use crate::config::yaml;

/// What a reader makes of a value, or what it says against it.
fn reads<T>(text: &str, read: impl FnOnce(Cursor<'_>) -> Option<T>) -> Result<T, Vec<String>> {
    let (root, mut findings) = yaml::parse(text);
    let value = decode(&root.unwrap(), &mut findings, read);
    let told = findings.iter().map(|finding| match &finding.hint {
        Some(hint) => format!("{}: {}; {hint}", finding.spot.path, finding.message),
        None => format!("{}: {}", finding.spot.path, finding.message),
    });
    let told: Vec<String> = told.collect();
    if told.is_empty() {
        Ok(value.unwrap())
    } else {
        Err(told)
    }
}

fn error<T: std::fmt::Debug>(text: &str, read: impl FnOnce(Cursor<'_>) -> Option<T>) -> String {
    reads(text, read).unwrap_err().join("\n")
}

#[test]
fn numbers_keep_to_their_range() {
    assert_eq!(reads("8080", |c| c.port()), Ok(8080));
    assert_eq!(
        error("0", |c| c.port()),
        ": 0 is out of range; write 1 to 65535"
    );
    assert_eq!(
        error("8080.0", |c| c.port()),
        ": `8080.0` is not a whole number; write 1 to 65535"
    );
    assert_eq!(
        error("99999999999999999999", |c| c.port()),
        ": `99999999999999999999` is not a whole number; write 1 to 65535"
    );
    assert_eq!(error("[]", |c| c.port()), ": expected a text, found a list");
}

#[test]
fn switches_are_true_or_false() {
    assert_eq!(reads("true", |c| c.boolean()), Ok(true));
    assert_eq!(
        error("yes", |c| c.boolean()),
        ": expected true or false; did you mean true?"
    );
    assert_eq!(
        error("off", |c| c.boolean()),
        ": expected true or false; did you mean false?"
    );
}

#[test]
fn a_choice_suggests_the_nearest_word() {
    let colours = [("red", 1), ("green", 2)];
    assert_eq!(reads("green", |c| c.choice(&colours)), Ok(2));
    assert_eq!(
        error("gren", |c| c.choice(&colours)),
        ": `gren` is not known here; did you mean `green`?"
    );
    assert_eq!(
        error("blue", |c| c.choice(&colours)),
        ": `blue` is not known here; one of red, green"
    );
}

#[test]
fn names_are_those_of_kubernetes() {
    for name in ["a", "a-1", "a.b-c", "0"] {
        assert!(reads(name, |c| c.name()).is_ok(), "{name}");
    }
    for name in ["A", "a_b", "-a", "a-", "a..b", "ä", "a b", &"a".repeat(64)] {
        assert!(reads(name, |c| c.name()).is_err(), "{name}");
    }
    assert!(reads("a.b", |c| c.namespace()).is_err());
}

#[test]
fn hosts_are_names_in_lower_case_with_a_wildcard_in_front() {
    use crate::model::HostPattern::{Exact, Wildcard};
    assert_eq!(
        reads("Shop.Example.COM.", |c| c.host_pattern()),
        Ok(Exact("shop.example.com".into()))
    );
    assert_eq!(
        reads("'*.example.com'", |c| c.host_pattern()),
        Ok(Wildcard("example.com".into()))
    );
    for host in [
        "'*'", "'*.'", "'a.*.b'", "10.0.0.1", "'::1'", "a:80", "http://a", "a/b", "a..b", "a b",
        "1.2.3",
    ] {
        assert!(reads(host, |c| c.host_pattern()).is_err(), "{host}");
    }
}

#[test]
fn endpoint_addresses_are_sockets_or_names_with_a_port() {
    let read =
        |text: &str| reads(text, |c| c.endpoint_address()).map(|address| address.to_string());
    assert_eq!(read("10.0.0.7:8080"), Ok("10.0.0.7:8080".to_owned()));
    assert_eq!(read("'[::1]:80'"), Ok("[::1]:80".to_owned()));
    assert_eq!(
        read("Cart_1.Example.com:80"),
        Ok("cart_1.example.com:80".to_owned())
    );
    for address in [
        "cart",
        "10.0.0.7",
        "10.0.0.7:0",
        "cart:0",
        "cart:65536",
        "::1:80",
        "300.0.0.1:80",
        "a/b:80",
    ] {
        assert!(read(address).is_err(), "{address}");
    }
}

#[test]
fn header_names_and_values_are_those_of_http() {
    assert!(reads("X-Version", |c| c.header_name()).is_ok());
    for name in ["a b", "'a:'", "''", "ü", ":authority"] {
        assert!(reads(name, |c| c.header_name()).is_err(), "{name}");
    }
    assert!(reads("a b, c", |c| c.header_value()).is_ok());
    for value in ["\"a\\nb\"", "' a'", "\"\\0\""] {
        assert!(reads(value, |c| c.header_value()).is_err(), "{value}");
    }
}

#[test]
fn regular_expressions_match_the_whole_and_are_bounded() {
    let regex = reads("'/a|/b'", |c| c.regex()).unwrap();
    assert!(regex.is_match(b"/a") && regex.is_match(b"/b"));
    assert!(!regex.is_match(b"/ab") && !regex.is_match(b"/a\n"));
    assert!(error("'(?=a)'", |c| c.regex()).contains("look-around"));
    assert!(error("'(a{1000}){1000}'", |c| c.regex()).contains("too large"));
    // A bracket that closes ours would escape the anchors.
    assert!(reads("'a)|(?:b'", |c| c.regex()).is_err());
}

#[test]
fn every_wrong_key_is_told_with_its_path() {
    let read = |cursor: Cursor<'_>| {
        cursor.fields(|fields| {
            fields.not_built(&[("later", "; wait")]);
            let items = fields.list("items", |c| {
                c.fields(|fields| fields.required("size", |c| c.size()))
            });
            fields.optional("zone", |c| c.owned_text());
            Some(items)
        })
    };
    let told = reads(
        "items: [{size: 1KiB}, {sise: 2}, {size: x}]\nzon: a\nlater: 1\nother: 1\n",
        read,
    );
    assert_eq!(
        told.unwrap_err(),
        [
            "items[1]: `size` is missing; is it `sise`?",
            "items[1].sise: unknown key `sise`; did you mean `size`?",
            "items[2].size: `x` is not a size; write a whole number of bytes with a unit, such as 64KiB, 10MiB or 1GB",
            "zon: unknown key `zon`; did you mean `zone`?",
            "later: unknown key `later`; not built yet; wait",
            "other: unknown key `other`; known here: items, zone",
        ]
    );
}

#[test]
fn a_key_without_a_value_is_left_out() {
    let read = |cursor: Cursor<'_>| {
        cursor.fields(|fields| {
            Some((
                fields.optional("a", |c| c.port()),
                fields.list("b", |c| c.port()),
            ))
        })
    };
    assert_eq!(reads("a:\nb: ~\n", read), Ok((None, vec![])));
    let missing = |cursor: Cursor<'_>| cursor.fields(|fields| fields.required("a", |c| c.port()));
    assert_eq!(error("a:\n", missing), ": `a` is missing");
}

#[test]
fn findings_of_one_document_are_bounded() {
    let text = "[".to_owned() + &"x,".repeat(FINDINGS_MAX * 2) + "]";
    let told = reads(&text, |cursor| cursor.list(|c| c.port()));
    assert_eq!(told.unwrap_err().len(), FINDINGS_MAX);
}
