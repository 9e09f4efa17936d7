//! Files of both kinds, and what their operations serve.

use std::fs;

use proptest::prelude::*;
use regex::bytes::Regex;

use super::*;

const CART: &str = "
openapi: 3.1.0
info: {title: Cart, version: '1'}
servers:
  - url: https://shop.example.com/{stage}/v1/
    variables: {stage: {default: live, enum: [live, test]}}
paths:
  /carts:
    summary: All of them
    parameters: [{name: page, in: query, schema: {type: integer}}]
    get: {operationId: listCarts, responses: {'200': {description: all}}}
    post: {responses: {'201': {description: made}}}
  /carts/{id}:
    get: {operationId: getCart, responses: {}}
  /carts/mine:
    get: {operationId: myCart, responses: {}}
  /carts/{id}/item-{number}.json:
    servers: [{url: /items}]
    put: {operationId: putItem}
  /carts/{id}/history: {$ref: '#/components/pathItems/history'}
  /elsewhere: {$ref: 'other.yaml#/x'}
  x-internal: {note: none of ours}
components:
  pathItems:
    history: {get: {operationId: history}}
";

const SWAGGER: &str =
    r#"{"swagger": "2.0", "basePath": "/api", "paths": {"/": {"head": {"operationId": "root"}}}}"#;

const STOCK: &str = r#"
syntax = "proto3";
package shop.stock.v1;
import "google/protobuf/empty.proto";
message Item { string name = 1; reserved 2 to 4; map<string, int32> counts = 5; }
service Stock {
  rpc Reserve(Item) returns (google.protobuf.Empty) { option (google.api.http) = { post: "/v1/reserve" body: "*" }; }
  rpc Watch(stream Item) returns (stream Item);
}
"#;

fn read(files: &[(&str, &str)]) -> (Interface, Vec<String>) {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |(name, text): &(&str, &str)| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        path
    };
    let files: Vec<PathBuf> = files.iter().map(write).collect();
    let (interface, unusable) = Interface::read(&files);
    let told = unusable.iter().map(|one| one.message.clone()).collect();
    (interface, told)
}

fn interface(files: &[(&str, &str)]) -> Interface {
    let (interface, unusable) = read(files);
    assert_eq!(unusable, Vec::<String>::new());
    interface
}

fn serving(interface: &Interface, method: &str, path: &str) -> String {
    let found = interface.serving(method, path.as_bytes());
    found.map_or_else(|| "none".to_owned(), ToString::to_string)
}

#[test]
fn operations_of_openapi_serve_requests_below_their_servers() {
    let cart = interface(&[("cart.yaml", CART)]);
    for (request, expected) in [
        ("GET /live/v1/carts", "GET /live/v1/carts"),
        ("HEAD /live/v1/carts", "GET /live/v1/carts"),
        ("POST /live/v1/carts", "POST /live/v1/carts"),
        ("DELETE /live/v1/carts", "none"),
        ("GET /live/v1/carts/", "none"),
        ("GET /carts", "none"),
        ("GET /live/v1/carts/7", "GET /live/v1/carts/{id}"),
        ("GET /live/v1/carts/mine", "GET /live/v1/carts/mine"),
        ("GET /live/v1/carts/mi%6ee", "GET /live/v1/carts/mine"),
        (
            "GET /live/v1/carts/7/history",
            "GET /live/v1/carts/{id}/history",
        ),
        (
            "PUT /items/carts/7/item-3.json",
            "PUT /items/carts/{id}/item-{number}.json",
        ),
        ("PUT /items/carts/7/item-.json", "none"),
        ("PUT /items/carts/7/item-3", "none"),
        ("BREW /live/v1/elsewhere", "* /live/v1/elsewhere"),
        ("GET /live/v1/elsewhere/else", "none"),
        ("OPTIONS *", "none"),
    ] {
        let (method, path) = request.split_once(' ').expect("two words");
        assert_eq!(serving(&cart, method, path), expected, "{request}");
    }
    let name = |path: &str| cart.serving("GET", path.as_bytes())?.name.clone();
    assert_eq!(name("/live/v1/carts/7").as_deref(), Some("getCart"));
}

#[test]
fn json_swagger_and_proto_are_read_too() {
    let both = interface(&[("root.json", SWAGGER), ("stock.proto", STOCK)]);
    for (request, expected) in [
        ("HEAD /api/", "HEAD /api/"),
        ("GET /api/", "none"),
        ("HEAD /api", "none"),
        (
            "POST /shop.stock.v1.Stock/Reserve",
            "POST /shop.stock.v1.Stock/Reserve",
        ),
        ("POST /shop.stock.v1.Stock/Release", "none"),
        ("GET /shop.stock.v1.Stock/Watch", "none"),
    ] {
        let (method, path) = request.split_once(' ').expect("two words");
        assert_eq!(serving(&both, method, path), expected, "{request}");
    }
}

#[test]
fn what_a_route_matches_is_served_where_one_request_is() {
    let both = interface(&[("cart.yaml", CART), ("stock.proto", STOCK)]);
    let prefix = |path: &str| PathMatch::Prefix(path.into());
    let exact = |path: &str| PathMatch::Exact(path.into());
    let regex =
        |path: &str| PathMatch::Regex(Regex::new(&format!(r"\A(?:{path})\z")).expect("one"));
    let method = |method: &str| PathMatch::Method(method.into());
    for (asked, path, expected) in [
        (None, prefix(""), true),
        (None, prefix("/live"), true),
        (None, prefix("/live/v1/carts/7/history"), true),
        (None, prefix("/live/v1/carts/7/history/old"), false),
        (None, prefix("/liv"), false),
        (Some("PUT"), prefix("/live"), true),
        (Some("PUT"), prefix("/items"), true),
        (Some("PATCH"), prefix("/items"), false),
        (Some("GET"), exact("/live/v1/carts"), true),
        (Some("DELETE"), exact("/live/v1/carts"), false),
        (None, exact("/live"), false),
        (None, regex("/live/v1/ca.*"), true),
        (Some("POST"), regex("/shop.*/Reserve"), true),
        (Some("POST"), regex("/nothing/.*"), false),
        (Some("POST"), method("Watch"), true),
        (Some("POST"), method("Release"), false),
        (Some("POST"), prefix("/shop.stock.v1.Stock"), true),
        (Some("POST"), prefix("/shop.stock.v2.Stock"), false),
    ] {
        assert_eq!(both.may_serve(asked, &path), expected, "{asked:?} {path:?}");
    }
    assert_eq!(
        both.nearest("/live/v1/cart", 2),
        "GET /live/v1/carts, POST /live/v1/carts and 7 more"
    );
}

#[test]
fn a_file_that_declares_nothing_says_why() {
    let (_, missing) = Interface::read(&["/nowhere/cart.yaml".into()]);
    assert!(missing[0].message.starts_with("cannot be read: "));
    for (name, text, expected) in [
        ("a.txt", "", "is no interface"),
        (
            "a.yaml",
            "openapi: 3.0.0\npaths: {}\n",
            "declares no operation",
        ),
        (
            "a.yaml",
            "openapi: 3.0.0\npaths: {carts: {}}\n",
            "the path `carts` does not begin with `/`",
        ),
        (
            "a.yaml",
            "kind: Service\n",
            "says neither `openapi:` nor `swagger:`",
        ),
        (
            "a.yaml",
            "openapi: 3.0.0\npaths: [1\n",
            "cannot be understood: ",
        ),
        (
            "a.json",
            "{\"openapi\": 3, \"paths\": {\"/a\": 1}}",
            "cannot be understood: ",
        ),
        ("a.yaml", "\u{0}", "cannot be understood: "),
        ("a.proto", "message A { }", "declares no operation"),
        ("a.proto", "servce A { }", "cannot be understood: "),
    ] {
        let (_, told) = read(&[(name, text)]);
        assert_eq!(told.len(), 1, "{text}");
        assert!(told[0].starts_with(expected), "{text}: {told:?}");
    }
}

proptest! {
    /// A template is the regular expression in which each parameter is `[^/]+`.
    #[test]
    fn templates_match_as_regular_expressions_do(
        template in "(/(a|b|\\{p\\}|\\.){0,4}){1,3}",
        path in "(/[ab.]{0,5}){0,4}",
    ) {
        let pattern = regex::escape(&template).replace(r"\{p\}", "[^/]+");
        let oracle = Regex::new(&format!(r"\A{pattern}\z")).expect("a regular expression");
        let template = Template::new(template);
        prop_assert_eq!(template.matches(path.as_bytes()), oracle.is_match(path.as_bytes()));
    }

    /// There is always an answer.
    #[test]
    fn whatever_bytes_a_file_has_it_is_read_or_refused(text in "(openapi|paths|/a|get|:|\\{|\\}|\n| |service|rpc|\\(|\\)|returns|;)*") {
        for name in ["a.yaml", "a.proto"] {
            let (interface, unusable) = read(&[(name, &text)]);
            prop_assert_eq!(interface.operations.is_empty(), !unusable.is_empty());
        }
    }
}
