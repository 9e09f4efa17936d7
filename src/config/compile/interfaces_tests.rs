//! What is said of routes to services that declare their operations.

use std::fs;

use crate::config::{Loader, Source};

const API: &str = "
swagger: '2.0'
paths:
  /carts: {get: {}, post: {}}
  /carts/{id}: {get: {}}
  /old/carts: {delete: {}}
";

const SERVICES: &str = "
{kind: Service, name: cart, ports: [{port: 80}], api: api/cart.yaml, subsets: {cart-v2: {version: v2}}}
---
{kind: Service, name: free, ports: [{port: 80}]}
---
kind: GRPCRoute
name: calls
parentRefs: [{kind: Service, name: cart}]
rules: [{backendRefs: [{name: cart}]}, {matches: [{method: {service: a.B, method: C}}], backendRefs: [{name: cart}]}]
---
kind: HTTPRoute
name: web
hostnames: [web]
rules:
";

/// What is told, below the folder that has the file of the interface.
fn told(api: &str, documents: &str) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("api")).expect("made");
    fs::write(folder.path().join("api/cart.yaml"), api).expect("written");
    let file = folder.path().join("mesh.yaml");
    let (_, problems) = Loader::new().judge_by_interfaces(&[Source::file(file, documents)]);
    let told = problems.iter().map(|problem| {
        let text = problem.to_string();
        text.replace(&format!("{}/", folder.path().display()), "")
    });
    told.collect()
}

/// Of rules, each as `match | filters | backend`.
fn of_rules(rules: &[&str]) -> Vec<String> {
    let mut documents = SERVICES.to_owned();
    for rule in rules {
        let parts: Vec<&str> = rule.split(" | ").collect();
        let [matches, filters, backend] = parts[..] else {
            panic!("{rule}");
        };
        documents += &format!(
            "  - {{matches: [{{{matches}}}], filters: [{filters}], backendRefs: [{{name: {backend}}}]}}\n"
        );
    }
    let told = told(API, &documents).into_iter();
    let of_web = told.filter(|told| !told.contains("POST /a.B/C"));
    of_web
        .map(|told| {
            let (_, message) = told.split_once("no operation of ").expect(&told);
            let (message, _) = message.split_once("; ").expect(&told);
            message.to_owned()
        })
        .collect()
}

const TO_OLD: &str =
    "{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /old}}}";
const TO_CART: &str =
    "{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /carts/1}}}";

#[test]
fn rules_that_lead_to_no_operation_are_told() {
    assert_eq!(
        of_rules(&[
            "path: {value: /carts} |  | cart",
            "path: {value: /cart} |  | cart",
            "path: {value: /cart} |  | free",
            "path: {value: /cart} |  | cart-v2",
            "path: {type: Exact, value: /carts/7} |  | cart",
            "path: {type: Exact, value: /carts/7/8} |  | cart",
            "method: PUT |  | cart",
            "method: HEAD |  | cart",
            "path: {type: RegularExpression, value: '/ca.*s'} |  | cart",
            "path: {type: RegularExpression, value: '/ca.*s'}, method: DELETE |  | cart",
        ]),
        [
            "default/cart serves /cart/…",
            "default/cart-v2 serves /cart/…",
            "default/cart serves /carts/7/8",
            "default/cart serves PUT /…",
            r"default/cart serves DELETE /… like \A(?:/ca.*s)\z",
        ]
    );
}

#[test]
fn what_a_rewrite_makes_of_a_path_is_what_counts() {
    assert_eq!(
        of_rules(&[
            &format!("path: {{value: /v1}} | {TO_OLD} | cart"),
            &format!("path: {{value: /v1}}, method: POST | {TO_OLD} | cart"),
            &format!("path: {{value: /v1}}, method: GET | {TO_CART} | cart"),
            &format!("path: {{value: /v1}}, method: POST | {TO_CART} | cart"),
            &format!("path: {{value: /v1}}, method: DELETE |  | cart, filters: [{TO_OLD}]"),
        ]),
        [
            "default/cart serves POST /old/…",
            "default/cart serves POST /carts/1",
        ]
    );
}

#[test]
fn a_file_that_cannot_be_used_is_an_error_and_says_nothing_of_routes() {
    let rule = "  - {matches: [{path: {value: /x}}], backendRefs: [{name: cart}]}\n";
    let documents = SERVICES.to_owned() + rule;
    let with = told("openapi: 3.0.0\npaths: {}\n", &documents);
    assert_eq!(
        with,
        ["mesh.yaml:2:55 api: api/cart.yaml: declares no operation; \
          an interface has operations under `paths`, or a proto `service`"]
    );
    let all = told(API, &documents);
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(all[0].contains(
        "warning: rules[1].backendRefs[0].name: no operation of default/cart serves POST /a.B/C"
    ));
    assert!(
        all[1].ends_with(
            "serves /x/…; its interface has GET /carts, POST /carts, GET /carts/{id} and 1 more"
        ),
        "{all:?}"
    );
}
