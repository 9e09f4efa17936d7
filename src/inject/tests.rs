use serde_json::{Value as Json, json};

use super::{Settings, Style, init_image_of, inject_text, review};

const APP: &str = "\
# The shop.
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  selector: {matchLabels: {app: shop}}
  template:
    metadata:
      labels: {app: shop, version: v1, pillion.dev/inject: enabled}
    spec:
      initContainers: [{name: migrate, image: shop}]
      containers:
        - {name: shop, image: shop, ports: [{containerPort: 8080}, {containerPort: 53, protocol: UDP}]}
      volumes: [{name: script, configMap: {name: script, defaultMode: 0755}}]
";

fn settings(style: Style) -> Settings {
    Settings {
        image: "pillion:1".to_owned(),
        init_image: init_image_of("pillion:1"),
        registry: "https://registry:15010".to_owned(),
        registry_secret: None,
        style,
        cpu_request: "10m".to_owned(),
        memory_request: "32Mi".to_owned(),
        memory_limit: "256Mi".to_owned(),
    }
}

fn injected(text: &str, style: Style) -> String {
    inject_text("app.yaml", text, &settings(style))
        .unwrap()
        .text
}

/// The pod template of the one document.
fn template(text: &str) -> Json {
    let document: Json = serde_yaml::from_str(text).unwrap();
    document["spec"]["template"].clone()
}

fn names(list: &Json) -> Vec<&str> {
    let items = list.as_array().unwrap().iter();
    items.map(|item| item["name"].as_str().unwrap()).collect()
}

fn variable<'t>(template: &'t Json, name: &str) -> &'t Json {
    let sidecar = &template["spec"]["initContainers"][1];
    let variables = sidecar["env"].as_array().unwrap();
    variables
        .iter()
        .find(|variable| variable["name"] == name)
        .unwrap()
}

#[test]
fn a_native_sidecar_stands_before_all_other_init_containers() {
    let template = template(&injected(APP, Style::Native));
    let init = &template["spec"]["initContainers"];
    assert_eq!(
        names(init),
        ["pillion-intercept", "pillion-sidecar", "migrate"]
    );
    assert_eq!(init[1]["restartPolicy"], "Always");
    // The signal comes to it only when the application has ended.
    let leave = json!({"preStop": {"exec": {"command": ["/pillion", "leave"]}}});
    assert_eq!(init[1]["lifecycle"], leave);
    assert_eq!(
        init[0]["securityContext"]["capabilities"],
        json!({"add": ["NET_ADMIN"], "drop": ["ALL"]})
    );
    assert_eq!(
        init[1]["securityContext"]["capabilities"],
        json!({"drop": ["ALL"]})
    );
    assert_eq!(names(&template["spec"]["containers"]), ["shop"]);
    assert_eq!(
        names(&template["spec"]["volumes"]),
        ["script", "pillion-state"]
    );
    assert_eq!(
        template["spec"]["volumes"][0]["configMap"]["defaultMode"],
        0o755
    );
    assert_eq!(
        variable(&template, "PILLION_APPS")["value"],
        "[{port: 8080}]"
    );
    assert_eq!(
        variable(&template, "PILLION_LABELS")["value"],
        r#"{"app":"shop","version":"v1"}"#
    );
}

#[test]
fn a_plain_sidecar_has_neither_a_restart_policy_nor_probes_nor_hooks() {
    let template = template(&injected(APP, Style::Plain));
    assert_eq!(
        names(&template["spec"]["initContainers"]),
        ["pillion-intercept", "migrate"]
    );
    assert_eq!(
        names(&template["spec"]["containers"]),
        ["shop", "pillion-sidecar"]
    );
    let sidecar = &template["spec"]["containers"][1];
    for key in ["restartPolicy", "readinessProbe", "lifecycle"] {
        assert!(sidecar.get(key).is_none(), "{key}");
    }
}

#[test]
fn plain_sidecars_of_two_services_have_two_volumes_and_a_name_is_never_too_long() {
    let volume = |service: &str| {
        let app = APP.replace("labels: {app: shop,", &format!("labels: {{app: {service},"));
        let template = template(&injected(&app, Style::Plain));
        names(&template["spec"]["volumes"])[1].to_owned()
    };
    assert_eq!(volume("cart"), "pillion-state-cart");
    assert_eq!(volume(&"c".repeat(63)).len(), 63);
}

#[test]
fn injecting_again_changes_nothing_and_the_other_style_replaces_the_first() {
    for style in [Style::Native, Style::Plain] {
        let once = injected(APP, style);
        assert_eq!(injected(&once, style), once);
    }
    let there = injected(APP, Style::Plain);
    assert_eq!(
        template(&injected(&there, Style::Native)),
        template(&injected(APP, Style::Native))
    );
}

#[test]
fn documents_without_a_pod_that_asks_are_kept_to_the_letter() {
    let text = "# kept\nkind: Service   # kept\nmetadata: {name: x}\n---\nkind: Pod\nmetadata: {name: y}\nspec: {containers: []}\n";
    let injection = inject_text("app.yaml", text, &settings(Style::Native)).unwrap();
    assert_eq!(injection.text, text);
    assert_eq!(injection.workloads.len(), 1);
    assert!(injected(APP, Style::Native).starts_with("# The shop.\napiVersion: apps/v1\n"));
}

#[test]
fn every_kind_of_workload_is_found_also_inside_a_list() {
    let pod = "metadata: {labels: {pillion.dev/inject: enabled}}, spec: {containers: [{name: a, image: a}]}";
    let text = format!(
        "kind: List\nitems:\n\
         - {{kind: Pod, {pod}}}\n- {{kind: StatefulSet, spec: {{template: {{{pod}}}}}}}\n\
         - {{kind: CronJob, spec: {{jobTemplate: {{spec: {{template: {{{pod}}}}}}}}}}}\n- {{kind: ConfigMap}}\n"
    );
    let injection = inject_text("list.yaml", &text, &settings(Style::Native)).unwrap();
    assert_eq!(injection.text.matches("name: pillion-sidecar").count(), 3);
    assert!(
        injection
            .workloads
            .iter()
            .all(|workload| workload.left.is_none())
    );
}

/// The template of [`APP`] with other annotations.
fn annotated(annotations: &str) -> String {
    APP.replace(
        "      labels:",
        &format!("      annotations: {{{annotations}}}\n      labels:"),
    )
}

#[test]
fn annotations_name_the_service_its_ports_and_what_is_not_redirected() {
    let text = annotated(
        "pillion.dev/service: cart, pillion.dev/ports: '80:8080/http, 9000', pillion.dev/exclude-inbound-ports: '22,9100-9200', \
         pillion.dev/exclude-outbound-cidrs: 10.9.0.0/16",
    );
    let template = template(&injected(&text, Style::Native));
    assert_eq!(variable(&template, "PILLION_SERVICE")["value"], "cart");
    assert_eq!(
        variable(&template, "PILLION_APPS")["value"],
        "[{port: 80, app: 8080, protocol: http}, {port: 9000}]"
    );
    assert_eq!(
        template["spec"]["initContainers"][0]["args"],
        json!([
            "apply",
            "--uid=1337",
            "--exclude-inbound-ports=15000,22,9100-9200",
            "--exclude-outbound-cidrs=10.9.0.0/16"
        ])
    );
}

#[test]
fn what_cannot_work_is_refused_with_the_place_and_the_reason() {
    for (text, reason) in [
        (
            annotated("pillion.dev/ports: '8080/udp'"),
            "http, http2, grpc or tcp",
        ),
        (annotated("pillion.dev/ports: '0'"), "write PORT"),
        (
            APP.replace(
                "- {name: shop,",
                "- {name: shop, securityContext: {runAsUser: 1337},",
            ),
            "which is the sidecar's",
        ),
        (
            annotated("pillion.dev/port: '80'"),
            "there are: service, ports",
        ),
        (
            annotated("pillion.dev/exclude-outbound-cidrs: '10.0.0.0/99'"),
            "pillion.dev/exclude-outbound-cidrs: `10.0.0.0/99`",
        ),
        (
            annotated("pillion.dev/service: My_Shop"),
            "did you mean `my-shop`?",
        ),
        (
            APP.replace("inject: enabled", "inject: yes please"),
            "write enabled or disabled",
        ),
        (
            "kind: Deployment\nmetadata: {name: x}\n".to_owned(),
            "it has no spec.template",
        ),
        ("a: [\n".to_owned(), "app.yaml:"),
    ] {
        let problems = inject_text("app.yaml", &text, &settings(Style::Native)).unwrap_err();
        let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert!(said.join("\n").contains(reason), "{reason}: {said:?}");
    }
    let job = APP.replace("kind: Deployment", "kind: Job");
    assert!(inject_text("job.yaml", &job, &settings(Style::Plain)).is_err());
}

#[test]
fn a_pod_on_the_hosts_network_is_left_alone() {
    let text = APP.replace(
        "      initContainers:",
        "      hostNetwork: true\n      initContainers:",
    );
    let injection = inject_text("app.yaml", &text, &settings(Style::Native)).unwrap();
    assert_eq!(injection.text, text);
    assert!(injection.workloads[0].left.unwrap().surprises());
}

#[test]
fn the_drain_fits_into_the_time_the_pod_has() {
    for (seconds, acknowledge, timeout) in [
        ("", "5000ms", "22500ms"),
        ("120", "5000ms", "30000ms"),
        ("4", "1000ms", "2700ms"),
    ] {
        let given = match seconds {
            "" => String::new(),
            seconds => format!("      terminationGracePeriodSeconds: {seconds}\n"),
        };
        let text = APP.replace(
            "      initContainers:",
            &format!("{given}      initContainers:"),
        );
        let template = template(&injected(&text, Style::Native));
        assert_eq!(
            variable(&template, "PILLION_DRAIN__ACKNOWLEDGE_TIMEOUT")["value"],
            acknowledge
        );
        assert_eq!(
            variable(&template, "PILLION_DRAIN__TIMEOUT")["value"],
            timeout
        );
    }
}

fn asked(request: &Json) -> Json {
    let body =
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
    let answer = review(body.to_string().as_bytes(), &settings(Style::Native)).unwrap();
    assert_eq!(answer["kind"], "AdmissionReview");
    answer["response"].clone()
}

fn pod(label: &str, host_network: bool) -> Json {
    json!({"metadata": {"labels": {"pillion.dev/inject": label}},
           "spec": {"hostNetwork": host_network, "containers": [{"name": "a", "image": "a"}]}})
}

#[test]
fn a_review_is_answered_with_its_own_uid_and_only_pods_that_ask_are_patched() {
    let create = |pod: &Json| {
        asked(&json!({"uid": "7", "kind": {"kind": "Pod"}, "operation": "CREATE", "object": pod}))
    };
    let patched = create(&pod("enabled", false));
    assert_eq!(
        (&patched["uid"], &patched["allowed"], &patched["patchType"]),
        (&json!("7"), &json!(true), &json!("JSONPatch"))
    );
    assert_eq!(
        create(&pod("disabled", false)),
        json!({"uid": "7", "allowed": true})
    );
    assert!(
        create(&pod("enabled", true))["warnings"][0]
            .as_str()
            .unwrap()
            .contains("host's network")
    );
    let denied = create(&pod("maybe", false));
    assert_eq!(
        (&denied["allowed"], &denied["status"]["code"]),
        (&json!(false), &json!(400))
    );
    let update = json!({"uid": "8", "kind": {"kind": "Pod"}, "operation": "UPDATE", "object": pod("enabled", false)});
    assert_eq!(asked(&update), json!({"uid": "8", "allowed": true}));
}

#[test]
fn what_is_no_admission_review_says_so() {
    for (body, reason) in [
        ("{", "no AdmissionReview"),
        ("[]", "no AdmissionReview"),
        ("{}", "this webhook answers"),
        (
            r#"{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview"}"#,
            "v1beta1",
        ),
        (
            r#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}"#,
            "no request",
        ),
        (
            r#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {}}"#,
            "no uid",
        ),
    ] {
        let error = review(body.as_bytes(), &settings(Style::Native)).unwrap_err();
        assert!(error.to_string().contains(reason), "{body}: {error}");
    }
}
