#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::super::object::Object;
use super::super::resources::{ResourceType, known};
use super::super::store::Part;
use super::{ApplyConfig, Patch, apply, first_apply, strategic};

#[track_caller]
fn check_strategic(mut target: Value, patch: &Value, expect: &Value) {
    strategic::merge(&mut target, patch);
    assert_eq!(target, *expect);
}

#[test]
fn a_strategic_patch_merges_maps_and_removes_what_is_null() {
    check_strategic(
        json!({ "metadata": { "labels": { "a": "1", "b": "2" } }, "spec": { "x": [1] } }),
        &json!({ "metadata": { "labels": { "a": null, "c": "3" } }, "spec": { "x": [2] } }),
        &json!({ "metadata": { "labels": { "b": "2", "c": "3" } }, "spec": { "x": [2] } }),
    );
}

#[test]
fn a_strategic_patch_merges_keyed_lists_by_their_key_and_puts_new_items_first() {
    let target = json!({ "conditions": [{ "type": "A", "since": 1 }, { "type": "B" }, { "type": "C" }] });
    let patch = json!({ "conditions": [{ "type": "B", "status": "True" }, { "type": "D" }] });
    let merged = json!({ "conditions": [
        { "type": "A", "since": 1 }, { "type": "B", "status": "True" }, { "type": "D" }, { "type": "C" },
    ] });
    check_strategic(target.clone(), &patch, &merged);
    let patch = json!({ "conditions": [{ "type": "A", "$patch": "delete" }, { "type": "Z" }] });
    check_strategic(
        target,
        &patch,
        &json!({ "conditions": [{ "type": "Z" }, { "type": "B" }, { "type": "C" }] }),
    );
}

#[test]
fn a_strategic_patch_follows_its_directives() {
    let target = json!({ "conditions": [{ "type": "A" }, { "type": "B" }], "finalizers": ["a", "b"] });
    let order = json!({
        "$setElementOrder/conditions": [{ "type": "B" }, { "type": "A" }],
        "conditions": [{ "type": "A", "status": "True" }],
    });
    let ordered = json!({ "conditions": [{ "type": "B" }, { "type": "A", "status": "True" }], "finalizers": ["a", "b"] });
    check_strategic(target.clone(), &order, &ordered);
    let patch = json!({
        "conditions": [{ "$patch": "replace" }, { "type": "C" }],
        "$deleteFromPrimitiveList/finalizers": ["a"],
    });
    check_strategic(target.clone(), &patch, &json!({ "conditions": [{ "type": "C" }], "finalizers": ["b"] }));
    let patch = json!({ "$retainKeys": ["finalizers", "new"], "new": 1 });
    check_strategic(target.clone(), &patch, &json!({ "finalizers": ["a", "b"], "new": 1 }));
    check_strategic(
        json!({ "a": { "b": 1, "c": 2 } }),
        &json!({ "a": { "$patch": "replace", "d": 3 } }),
        &json!({ "a": { "d": 3 } }),
    );
    check_strategic(json!({ "a": 1, "b": 2 }), &json!({ "a": { "$patch": "delete" } }), &json!({ "b": 2 }));
}

/// Applies each of `configs` (manager, force, config) in turn; the last object or refusal.
fn applied(kind: &ResourceType, configs: &[(&str, bool, Value)]) -> Result<Value, String> {
    let mut object: Option<Value> = None;
    for (manager, force, config) in configs {
        let mut config = config.clone();
        config["apiVersion"] = kind.api_version().into();
        config["kind"] = kind.kind.as_str().into();
        let config = ApplyConfig::new(config, manager, *force).unwrap();
        object = Some(match object {
            None => first_apply(kind, "it", &config).unwrap(),
            Some(object) => apply(kind, Part::Main, &Object::new(object), &Patch::Apply(config))
                .map_err(|refusal| refusal.message)?,
        });
    }
    let mut object = object.unwrap();
    object["metadata"].as_object_mut().unwrap().remove("managedFields");
    Ok(object)
}

fn node() -> ResourceType {
    known().into_iter().find(|kind| kind.kind == "Node").unwrap()
}

fn widget() -> ResourceType {
    ResourceType::custom("example.com", "v1", "widgets", "Widget")
}

#[test]
fn an_apply_takes_back_what_it_no_longer_names_and_leaves_what_others_name() {
    let first = json!({ "spec": { "a": { "x": 1, "y": 1 }, "b": 1 } });
    let other = json!({ "spec": { "a": { "y": 1 } } });
    let last = json!({ "spec": { "c": 1 } });
    let object =
        applied(&widget(), &[("one", false, first), ("two", false, other), ("one", false, last)]).unwrap();
    assert_eq!(object["spec"], json!({ "a": { "y": 1 }, "c": 1 }));
}

#[test]
fn an_apply_over_another_appliers_value_is_a_conflict_that_force_wins() {
    let first = || ("one", false, json!({ "spec": { "a": 1 } }));
    let refusal = applied(&widget(), &[first(), ("two", false, json!({ "spec": { "a": 2 } }))]).unwrap_err();
    assert_eq!(refusal, "Apply failed with 1 conflict: conflict with \"one\": .spec.a");
    let forced = ("two", true, json!({ "spec": { "a": 2 } }));
    // Once forced, the field is the second applier's alone: the first one's silence leaves it.
    let object = applied(&widget(), &[first(), forced, ("one", false, json!({}))]).unwrap();
    assert_eq!(object["spec"], json!({ "a": 2 }));
}

#[test]
fn an_apply_merges_keyed_lists_of_built_in_types_and_replaces_those_of_custom_ones() {
    let condition = |name: &str| json!({ "status": { "conditions": [{ "type": name, "status": "True" }] } });
    let configs = [("one", false, condition("A")), ("two", false, condition("B"))];
    let types = |object: Value| {
        let conditions = object["status"]["conditions"].as_array().unwrap().clone();
        conditions.iter().map(|it| it["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(types(applied(&node(), &configs).unwrap()), ["A", "B"]);
    let [first, (manager, _, second)] = configs;
    assert_eq!(types(applied(&widget(), &[first, (manager, true, second)]).unwrap()), ["B"]);
}

#[test]
fn a_patch_is_read_by_its_content_type() {
    let read =
        |media: &str, body: &str| Patch::parse(media, body.as_bytes(), "", false).map_err(|it| it.code);
    assert!(matches!(read("application/merge-patch+json; charset=utf-8", "{}"), Ok(Patch::Merge(_))));
    assert!(matches!(read("application/strategic-merge-patch+json", "{}"), Ok(Patch::Strategic(_))));
    assert!(matches!(read("application/json-patch+json", "[]"), Ok(Patch::Json(_))));
    assert_eq!(read("application/json-patch+json", "{}").unwrap_err(), 400);
    assert_eq!(read("application/json", "{}").unwrap_err(), 415);
    assert_eq!(
        read("application/apply-patch+yaml", "{\"kind\":\"A\",\"apiVersion\":\"v1\"}").unwrap_err(),
        422
    );
}
