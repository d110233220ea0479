//! Reading and writing of YAML: what is accepted, what is refused where, how findings look.

use std::path::Path;

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Finding, Span, documents, render, to_text, tree, trees, typed};

fn one(text: &str) -> Value {
    documents(text).unwrap().remove(0).1
}

#[test]
fn documents_come_with_the_line_they_start_at() {
    let text = "# comment\nkind: A\n---\n# more\nkind: B\n---\n---\nkind: C\n";
    let expected = vec![(2, json!({"kind": "A"})), (5, json!({"kind": "B"})), (8, json!({"kind": "C"}))];
    assert_eq!(documents(text).unwrap(), expected);
    assert_eq!(documents("").unwrap(), vec![]);
    assert_eq!(documents("# nothing\n").unwrap(), vec![]);
}

#[rstest::rstest]
#[case("mode: 0644", json!({"mode": "0644"}))]
#[case("answer: no", json!({"answer": "no"}))]
#[case("a: [1, 2.5, true, ~, 'x']", json!({"a": [1, 2.5, true, null, "x"]}))]
#[case("a: '1'\nb: \"true\"\nc: !!str 5", json!({"a": "1", "b": "true", "c": "5"}))]
#[case("a: |\n  one\n  two\nb: >-\n  three\n  four\n", json!({"a": "one\ntwo\n", "b": "three four"}))]
#[case("a: &x {b: 1}\nc: *x", json!({"a": {"b": 1}, "c": {"b": 1}}))]
#[case("base: &x {b: 1, c: 2}\nd:\n  <<: *x\n  c: 3", json!({"base": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}))]
#[case("d:\n  <<: [{a: 1}, {a: 2, b: 3}]", json!({"d": {"a": 1, "b": 3}}))]
#[case("8080: x\ntrue: y", json!({"8080": "x", "true": "y"}))]
fn what_a_text_means(#[case] text: &str, #[case] expected: Value) {
    let value = one(text);
    let sorted = |value: &Value| serde_json::from_str::<Value>(&value.to_string()).unwrap();
    assert_eq!(sorted(&value), sorted(&expected));
}

#[rstest::rstest]
#[case("a: 1\nb: [", 2, "this is not YAML")]
#[case("a: 1\n\tb: 2", 2, "this is not YAML")]
#[case("a: 1\nb: 2\na: 3", 3, "the key `a` stands here twice")]
#[case("x:\n  a: 1\n  a: 3", 3, "the key `a` stands here twice")]
#[case("a: *x", 1, "this is not YAML")]
#[case("a: &x [*x]", 1, "this alias stands inside of what it refers to")]
#[case("a: !vault x", 1, "the tag `!vault` means nothing here")]
#[case("a:\n  <<: 5", 2, "`<<` merges mappings, and this is none")]
#[case("name: {{ host }}", 1, "a key has to be a text")]
fn what_is_refused_and_where(#[case] text: &str, #[case] line: usize, #[case] message: &str) {
    let finding = documents(text).unwrap_err();
    assert_eq!((finding.line, finding.message.starts_with(message)), (line, true), "{finding:?}");
}

#[test]
fn hostile_texts_are_refused_in_no_time() {
    let started = std::time::Instant::now();
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    assert!(documents(&bomb).unwrap_err().message.starts_with("more than 250000 values"));
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 1000].join(", "));
    assert!(documents(&long).unwrap_err().message.starts_with("more than 250000 values"));
    assert!(documents(&"[".repeat(100_000)).is_err());
    let nested = format!("{}{}", "[".repeat(65), "]".repeat(65));
    assert!(documents(&nested).unwrap_err().message.contains("nested deeper than 64"));
    let mut tower = String::from("a0: &a0 [x]\n");
    for level in 1..100 {
        tower.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    assert!(documents(&tower).unwrap_err().message.contains("nested deeper than 64"));
    assert!(documents(&"x".repeat(5 << 20)).unwrap_err().message.contains("more than the 4194304"));
    assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn a_single_document_stays_single() {
    assert!(tree("").unwrap().0.is_null());
    let finding = tree("a: 1\n---\nb: 2\n").unwrap_err();
    assert_eq!((finding.line, finding.column), (3, 1));
}

#[test]
fn nodes_know_their_places() {
    use super::{Content, Node};
    let (node, _) = tree("hosts:\n  # ü\n  cp1: {address: \"10.0.0.1\", labels: |\n")
        .unwrap_or_else(|_| tree("hosts:\n  # ü\n  cp1: {address: \"10.0.0.1\"}\n  ключ: значение # x\n").unwrap());
    let entries = |node: &Node| match &node.content {
        Content::Map(entries) => entries.clone(),
        other => panic!("{other:?}"),
    };
    let hosts = entries(&entries(&node)[0].value);
    assert_eq!(hosts[0].key.span, Span::new(3, 3, 3));
    assert_eq!(hosts[0].value.span, Span::new(3, 8, 1));
    assert_eq!(entries(&hosts[0].value)[0].value.span, Span::new(3, 18, 10));
    assert_eq!(hosts[1].key.span, Span::new(4, 3, 4));
    assert_eq!(hosts[1].value.span, Span::new(4, 9, 8));
}

#[rstest::rstest]
#[case("b: |\n  x\n", 2, 3)]
#[case("b: |\n\n\n    x\n", 4, 5)]
#[case("b: >-\n\n  x\n", 3, 3)]
#[case("b: |2\n    x\n", 2, 3)]
fn a_block_stands_where_its_first_filled_line_is(#[case] text: &str, #[case] line: usize, #[case] column: usize) {
    let super::Content::Map(entries) = tree(text).unwrap().0.content else { panic!() };
    assert_eq!((entries[0].value.span.line, entries[0].value.span.column), (line, column));
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Small {
    name: String,
    #[serde(default)]
    size: Option<u32>,
}

#[test]
fn typed_documents_are_strict() {
    assert_eq!(typed::<Small>("name: a\nsize: 3").unwrap(), Small { name: "a".into(), size: Some(3) });
    let finding = typed::<Small>("name: a\nsizes: 3").unwrap_err();
    assert_eq!((finding.line, finding.column), (2, 1), "{finding:?}");
    assert!(finding.message.contains("sizes"), "{finding:?}");
    let finding = typed::<Small>("name: a\nsize: x").unwrap_err();
    assert_eq!((finding.line, finding.column), (2, 7), "{finding:?}");
    assert_eq!(typed::<Small>("name: a\nname: b").unwrap_err().line, 2);
    assert_eq!(typed::<Small>("size: 3").unwrap_err().line, 1);
}

#[test]
fn a_finding_is_shown_under_its_line() {
    let source = "cluster:\n  name: demo\nhosts:\n  cp1: {adress: 10.0.0.1}\n";
    let finding = Finding::error(Span::new(4, 9, 6), "`adress` is no key of a host")
        .label("unknown key")
        .help("did you mean `address`?");
    insta::assert_snapshot!(render(&[finding], source, Path::new("inventory.yaml")), @r"
    error: `adress` is no key of a host
     --> inventory.yaml:4:9
      |
    4 |   cp1: {adress: 10.0.0.1}
      |         ^^^^^^ unknown key
      |
      = help: did you mean `address`?
    ");
}

#[test]
fn two_places_are_shown_together() {
    let source = "ü: 1\nb: 2\nc: 3\nd: 4\ne: 5\nf: 6\nü: 7\n";
    let (_, findings) = trees(source).unwrap();
    insta::assert_snapshot!(render(&findings, source, Path::new("x.yaml")), @r"
    error: the key `ü` stands here twice
     --> x.yaml:7:1
      |
    1 | ü: 1
      | - first here
    ...
    7 | ü: 7
      | ^ again
      |
      = help: remove one of them
    ");
}

#[test]
fn places_outside_of_the_text_do_no_harm() {
    for span in [Span::new(0, 0, 0), Span::new(99, 99, 99), Span::new(1, 3, usize::MAX)] {
        let finding = Finding::error(span, "x").related(Span::new(50, 2, 3), "y");
        assert!(render(&[finding], "a: 1", Path::new("x.yaml")).contains("x.yaml"));
    }
    assert!(render(&vec![Finding::error(Span::new(1, 1, 1), "x"); 60], "", Path::new("x")).contains("10 more"));
}

fn value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        any::<String>().prop_map(Value::String),
        "[ -~\n]{0,90}".prop_map(Value::String),
        prop_oneof![Just("no"), Just("0644"), Just("1e3"), Just("~"), Just(""), Just("- x"), Just("a: b"), Just("*x")]
            .prop_map(|text| Value::String(text.to_owned())),
    ];
    let leaf =
        prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::Bool), any::<i64>().prop_map(Value::from), text];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::vec(("[a-z0-9./ -]{1,12}", inner), 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_is_written_reads_the_same(value in value()) {
        let text = to_text(&value);
        let (nodes, findings) = trees(&text).unwrap();
        proptest::prop_assert!(findings.is_empty(), "{findings:?}\n{text}");
        proptest::prop_assert_eq!(nodes.first().map_or(Value::Null, super::Node::to_value), value, "{}", text);
    }

    #[test]
    fn no_text_makes_it_panic(text in prop_oneof![any::<String>(), "[-a-c:{}\\[\\]&*!|>'\"#<?, \n\t]{0,60}"]) {
        let findings = match trees(&text) {
            Ok((_, findings)) => findings,
            Err(finding) => vec![finding],
        };
        let _ = render(&findings, &text, Path::new("x.yaml"));
        let _ = typed::<Small>(&text);
    }
}
