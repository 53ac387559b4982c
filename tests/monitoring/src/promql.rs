//! Which metrics, labels and values a query names.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, anyhow};
use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector};

/// A metric as a query uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// Its name.
    pub metric: String,
    /// The labels that are asked for or that is summed up by, and the values that are asked for.
    pub labels: BTreeMap<String, BTreeSet<String>>,
}

/// Parses a query: which metrics it names, and what of them.
///
/// # Errors
/// Where it is no PromQL.
pub fn used(query: &str) -> Result<Vec<Used>> {
    let mut all = Vec::new();
    walk(&parse(query)?, &BTreeSet::new(), &mut |selector, by| all.push(selected(selector, by)));
    Ok(all)
}

/// The series that a query looks at, each as a query of its own, without window and offset.
///
/// # Errors
/// Where it is no PromQL.
pub fn selectors(query: &str) -> Result<Vec<String>> {
    let mut all = Vec::new();
    walk(&parse(query)?, &BTreeSet::new(), &mut |selector, _| {
        all.push(VectorSelector { offset: None, at: None, ..selector.clone() }.to_string());
    });
    Ok(all)
}

fn parse(query: &str) -> Result<Expr> {
    parser::parse(query).map_err(|error| anyhow!("{query} is no PromQL: {error}"))
}

/// `by` are the labels that the expressions around this one keep or drop.
fn walk(expr: &Expr, by: &BTreeSet<String>, see: &mut impl FnMut(&VectorSelector, &BTreeSet<String>)) {
    match expr {
        Expr::Aggregate(of) => {
            let labels = of.modifier.as_ref().map(LabelModifier::labels);
            let by: BTreeSet<String> =
                by.iter().chain(labels.into_iter().flat_map(|l| &l.labels)).cloned().collect();
            walk(&of.expr, &by, see);
            of.param.iter().for_each(|param| walk(param, &BTreeSet::new(), see));
        }
        Expr::Binary(of) => [&of.lhs, &of.rhs].into_iter().for_each(|side| walk(side, by, see)),
        Expr::Call(of) => of.args.args.iter().for_each(|argument| walk(argument, by, see)),
        Expr::Unary(of) => walk(&of.expr, by, see),
        Expr::Paren(of) => walk(&of.expr, by, see),
        Expr::Subquery(of) => walk(&of.expr, by, see),
        Expr::VectorSelector(of) => see(of, by),
        Expr::MatrixSelector(of) => see(&of.vs, by),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
    }
}

fn selected(selector: &VectorSelector, by: &BTreeSet<String>) -> Used {
    let mut labels: BTreeMap<String, BTreeSet<String>> =
        by.iter().map(|label| (label.clone(), BTreeSet::new())).collect();
    for matcher in &selector.matchers.matchers {
        labels.entry(matcher.name.clone()).or_default().extend(values(matcher));
    }
    Used { metric: selector.name.clone().unwrap_or_default(), labels }
}

/// The values that a matcher names: not what a person will choose, and no patterns.
fn values(matcher: &Matcher) -> Vec<String> {
    let regex = matches!(matcher.op, MatchOp::Re(_) | MatchOp::NotRe(_));
    let split = matcher.value.split(move |letter| regex && letter == '|');
    let is_word = |text: &&str| !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_');
    split.filter(is_word).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::selectors;

    #[test]
    fn selectors_stand_alone() {
        let query = r#"sum(rate(a{b="c"}[5m])) / on (d) (a unless e{f=~"g|h"} offset 1h) > 0.5"#;
        assert_eq!(selectors(query).unwrap(), [r#"a{b="c"}"#, "a", r#"e{f=~"g|h"}"#]);
        assert!(selectors("sum(").is_err());
    }
}
