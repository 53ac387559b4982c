//! Label and field selectors, as list and watch take them.

use serde_json::Value;

use super::error::ApiError;
use super::object::text;
use super::resources::ResourceType;

/// Which objects a list or watch shows. The default shows all.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector {
    labels: Vec<LabelRequirement>,
    fields: Vec<FieldRequirement>,
}

#[derive(Clone, Debug, PartialEq)]
enum LabelRequirement {
    Exists(String),
    Missing(String),
    In(String, Vec<String>),
    /// Also true of an object without the label.
    NotIn(String, Vec<String>),
    Greater(String, i64),
    Less(String, i64),
}

#[derive(Clone, Debug)]
struct FieldRequirement {
    path: Vec<String>,
    value: String,
    equal: bool,
}

impl Selector {
    /// # Errors
    /// 400 for text that is no selector, or a field that `kind` cannot be selected by.
    pub(super) fn parse(kind: &ResourceType, labels: &str, fields: &str) -> Result<Self, ApiError> {
        Ok(Self { labels: parse_labels(labels)?, fields: parse_fields(kind, fields)? })
    }

    pub(super) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        self.labels.iter().all(|label| label.matches(object))
            && self.fields.iter().all(|field| field.matches(object))
    }
}

impl LabelRequirement {
    fn matches(&self, object: &Value) -> bool {
        let label = |key: &str| {
            object
                .get("metadata")
                .and_then(|m| m.get("labels"))
                .and_then(|l| l.get(key))
                .and_then(Value::as_str)
        };
        let number = |key: &str| label(key).and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::Exists(key) => label(key).is_some(),
            Self::Missing(key) => label(key).is_none(),
            Self::In(key, values) => label(key).is_some_and(|value| values.iter().any(|v| v == value)),
            Self::NotIn(key, values) => label(key).is_none_or(|value| values.iter().all(|v| v != value)),
            Self::Greater(key, bound) => number(key).is_some_and(|value| value > *bound),
            Self::Less(key, bound) => number(key).is_some_and(|value| value < *bound),
        }
    }
}

impl FieldRequirement {
    fn matches(&self, object: &Value) -> bool {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let same = match super::object::at(object, &path) {
            Some(Value::Bool(flag)) => flag.to_string() == self.value,
            // The one flag among the fields: false when it is not there.
            None if path == ["spec", "unschedulable"] => self.value == "false",
            _ => text(object, &path) == self.value,
        };
        same == self.equal
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Sign(&'static str),
}

/// Longer signs first, so that `==` is not read as two `=`.
const SIGNS: [&str; 9] = ["==", "!=", "=", "!", "<", ">", "(", ")", ","];

fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let token = if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            rest = &rest[sign.len()..];
            Token::Sign(sign)
        } else {
            let end = rest
                .find(|c: char| c.is_whitespace() || SIGNS.iter().any(|sign| sign.starts_with(c)))
                .unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after;
            Token::Word(word.to_owned())
        };
        found.push(token);
        rest = rest.trim_start();
    }
    found
}

fn parse_labels(selector: &str) -> Result<Vec<LabelRequirement>, ApiError> {
    let tokens = tokens(selector);
    let mut tokens = tokens.iter().peekable();
    let mut requirements = Vec::new();
    while tokens.peek().is_some() {
        requirements.push(parse_label(&mut tokens)?);
        match tokens.next() {
            None => break,
            Some(Token::Sign(",")) if tokens.peek().is_some() => {}
            other => return Err(unexpected(other, "',' or 'end of string'")),
        }
    }
    Ok(requirements)
}

fn parse_label<'a>(
    tokens: &mut std::iter::Peekable<impl Iterator<Item = &'a Token>>,
) -> Result<LabelRequirement, ApiError> {
    let missing = tokens.next_if(|token| **token == Token::Sign("!")).is_some();
    let key = match tokens.next() {
        Some(Token::Word(word)) => word.clone(),
        other => return Err(unexpected(other, "!, identifier, or 'end of string'")),
    };
    if missing {
        return Ok(LabelRequirement::Missing(key));
    }
    let operator = match tokens.peek() {
        None | Some(Token::Sign(",")) => return Ok(LabelRequirement::Exists(key)),
        Some(Token::Sign(sign @ ("=" | "==" | "!=" | "<" | ">"))) => *sign,
        Some(Token::Word(word)) if word == "in" => "in",
        Some(Token::Word(word)) if word == "notin" => "notin",
        other => return Err(unexpected(other.copied(), "',' or 'end of string'")),
    };
    tokens.next();
    if operator == "in" || operator == "notin" {
        let values = parse_values(tokens)?;
        return Ok(match operator {
            "in" => LabelRequirement::In(key, values),
            _ => LabelRequirement::NotIn(key, values),
        });
    }
    // `key=` asks for the empty value.
    let value = match tokens.next_if(|token| matches!(token, Token::Word(_))) {
        Some(Token::Word(word)) => word.clone(),
        _ => String::new(),
    };
    let number = || {
        value.parse().map_err(|_| {
            let why = "for 'Gt', 'Lt' operators, the value must be an integer";
            ApiError::bad_request(format!("values[0][{key}]: Invalid value: \"{value}\": {why}"))
        })
    };
    Ok(match operator {
        ">" => LabelRequirement::Greater(key.clone(), number()?),
        "<" => LabelRequirement::Less(key.clone(), number()?),
        "!=" => LabelRequirement::NotIn(key, vec![value]),
        _ => LabelRequirement::In(key, vec![value]),
    })
}

fn parse_values<'a>(tokens: &mut impl Iterator<Item = &'a Token>) -> Result<Vec<String>, ApiError> {
    match tokens.next() {
        Some(Token::Sign("(")) => {}
        other => return Err(unexpected(other, "'('")),
    }
    let mut values = Vec::new();
    loop {
        match tokens.next() {
            Some(Token::Word(word)) => values.push(word.clone()),
            Some(Token::Sign(",")) => {}
            Some(Token::Sign(")")) => return Ok(values),
            other => return Err(unexpected(other, "',', ')' or identifier")),
        }
    }
}

fn unexpected(found: Option<&Token>, expected: &str) -> ApiError {
    let found = match found {
        Some(Token::Word(word)) => word.as_str(),
        Some(Token::Sign(sign)) => sign,
        None => "",
    };
    ApiError::bad_request(format!("found '{found}', expected: {expected}"))
}

fn parse_fields(kind: &ResourceType, selector: &str) -> Result<Vec<FieldRequirement>, ApiError> {
    selector
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| parse_field(kind, part))
        .collect()
}

fn parse_field(kind: &ResourceType, part: &str) -> Result<FieldRequirement, ApiError> {
    let split = ["!=", "==", "="]
        .iter()
        .find_map(|sign| part.split_once(sign).map(|(field, value)| (field, value, *sign != "!=")));
    let Some((field, value, equal)) = split else {
        return Err(ApiError::bad_request(format!(
            "invalid field selector: \"{part}\"; can't understand '{part}'"
        )));
    };
    let everywhere = ["metadata.name", "metadata.namespace"];
    if !everywhere.contains(&field) && !kind.fields.contains(&field) {
        return Err(ApiError::bad_request(format!("field label not supported: {field}")));
    }
    let path = field.split('.').map(str::to_owned).collect();
    Ok(FieldRequirement { path, value: value.to_owned(), equal })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::super::resources::known;
    use super::*;

    #[track_caller]
    fn check(labels: &str, fields: &str, expect: bool) {
        let pod = json!({
            "metadata": { "name": "a", "namespace": "n", "labels": { "app": "web", "tier": "3" } },
            "spec": { "nodeName": "node-1" },
        });
        let selector = Selector::parse(&known()[0], labels, fields).unwrap();
        assert_eq!(selector.matches(&pod), expect, "{labels} {fields}");
    }

    #[test]
    fn labels_are_compared_as_the_api_says() {
        check("", "", true);
        check("app", "", true);
        check("!app", "", false);
        check("!gone", "", true);
        check("app=web,tier==3", "", true);
        check("app = web , tier != 4", "", true);
        check("gone!=x", "", true);
        check("app in (db, web)", "", true);
        check("app notin (db,web)", "", false);
        check("gone notin (x)", "", true);
        check("app in (db),tier=3", "", false);
        check("tier>2,tier<4", "", true);
        check("app>2", "", false);
        check("app=", "", false);
    }

    #[test]
    fn fields_are_compared_and_an_absent_one_is_empty() {
        check("", "metadata.name=a,metadata.namespace==n", true);
        check("", "spec.nodeName=node-1", true);
        check("", "spec.nodeName!=", true);
        check("", "status.phase=", true);
        check("", "status.phase!=Running", true);
    }

    #[test]
    fn a_node_can_be_scheduled_to_unless_it_says_otherwise() {
        let nodes = known().into_iter().find(|kind| kind.kind == "Node").unwrap();
        let selector = Selector::parse(&nodes, "", "spec.unschedulable=false").unwrap();
        assert!(selector.matches(&json!({ "spec": {} })));
        assert!(selector.matches(&json!({ "spec": { "unschedulable": false } })));
        assert!(!selector.matches(&json!({ "spec": { "unschedulable": true } })));
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        let pods = &known()[0];
        for (labels, fields, expect) in [
            ("a==b==c", "", "found '==', expected: ',' or 'end of string'"),
            ("a in b", "", "found 'b', expected: '('"),
            ("a,", "", "found ',', expected: ',' or 'end of string'"),
            ("", "spec.foo=1", "field label not supported: spec.foo"),
            ("", "nothing", "invalid field selector: \"nothing\"; can't understand 'nothing'"),
        ] {
            let refusal = Selector::parse(pods, labels, fields).unwrap_err();
            assert_eq!((refusal.code, refusal.message.as_str()), (400, expect));
        }
    }
}
