//! Expressions: `{{ }}` in arguments and templates, `when`, `loop`. What is not defined is a mistake, and no expression
//! runs for long.

use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior};
use serde_json::Value;

use super::{Repeat, Task};
use crate::fact::Facts;
use crate::failure::{Failure, Kind, Result};

/// Instructions one expression may take.
const FUEL: u64 = 100_000;

/// What expressions see: `facts` and the variables of the order; `item` inside a loop.
pub struct Renderer {
    environment: Environment<'static>,
    context: BTreeMap<String, Value>,
}

impl Renderer {
    /// A renderer for one host.
    pub fn new(facts: &Facts, variables: &BTreeMap<String, Value>) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
        let syntax =
            syntax.map_err(|error| Failure::new(Kind::Internal, "the syntax of templates is wrong").because(&error))?;
        environment.set_syntax(syntax);
        let mut context = variables.clone();
        let facts = serde_json::to_value(facts)
            .map_err(|error| Failure::new(Kind::Internal, "facts cannot be written").because(&error))?;
        context.insert("facts".to_owned(), facts);
        Ok(Self { environment, context })
    }

    /// The same with `item` set.
    pub fn with_item(&self, item: &Value) -> Self {
        let mut context = self.context.clone();
        context.insert("item".to_owned(), item.clone());
        Self { environment: self.environment.clone(), context }
    }

    fn context(&self) -> minijinja::Value {
        minijinja::Value::from(minijinja::value::Serde(&self.context))
    }

    /// A template's text.
    pub fn text(&self, template: &str, place: &str) -> Result<String> {
        self.environment.render_str(template, self.context()).map_err(|error| wrong(place, template, &error))
    }

    /// All texts inside of a value.
    pub fn value(&self, value: &Value, place: &str) -> Result<Value> {
        Ok(match value {
            Value::String(text) if text.contains("{{") || text.contains("{%") => Value::String(self.text(text, place)?),
            Value::Array(items) => {
                Value::Array(items.iter().map(|item| self.value(item, place)).collect::<Result<_>>()?)
            }
            Value::Object(fields) => {
                let fields = fields.iter().map(|(key, value)| Ok((key.clone(), self.value(value, place)?)));
                Value::Object(fields.collect::<Result<_>>()?)
            }
            other => other.clone(),
        })
    }

    fn evaluate(&self, expression: &str, place: &str) -> Result<minijinja::Value> {
        let compiled = self.environment.compile_expression(expression);
        let value = compiled.and_then(|compiled| compiled.eval(self.context()));
        let value = value.map_err(|error| wrong(place, expression, &error))?;
        if value.is_undefined() {
            return Err(Failure::new(Kind::Configuration, format!("{place}: `{expression}` is not defined"))
                .advise("define it as a variable, or write `is defined`"));
        }
        Ok(value)
    }

    /// Whether a task's `when` holds; it does when there is none.
    pub fn holds(&self, task: &Task) -> Result<bool> {
        task.when.as_deref().map_or(Ok(true), |when| Ok(self.evaluate(when, &task.place)?.is_true()))
    }

    /// What a task is repeated for; once with nothing when it has no `loop`.
    pub fn items(&self, task: &Task) -> Result<Vec<Option<Value>>> {
        match &task.repeat {
            None => Ok(vec![None]),
            Some(Repeat::Items(items)) => items.iter().map(|item| self.value(item, &task.place).map(Some)).collect(),
            Some(Repeat::Expression(expression)) => {
                let value = self.evaluate(expression, &task.place)?;
                let no_list = || {
                    Failure::new(Kind::Configuration, format!("{}: `loop: {expression}` is no list", task.place))
                        .advise("loop over a list")
                };
                let items = value.try_iter().map_err(|_| no_list())?;
                items.map(|item| serde_json::to_value(item).map(Some).map_err(|_| no_list())).collect()
            }
        }
    }
}

fn wrong(place: &str, text: &str, error: &minijinja::Error) -> Failure {
    let shown: String = text.lines().next().unwrap_or_default().chars().take(80).collect();
    Failure::new(Kind::Configuration, format!("{place}: cannot evaluate `{shown}`"))
        .because(error)
        .advise("correct the expression; `facts` and the play's variables can be used")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::Renderer;
    use crate::fact::Facts;
    use crate::playbook::{Repeat, Task};

    fn renderer() -> Renderer {
        let facts = Facts { hostname: "web1".into(), cpus: 4, ..Facts::default() };
        Renderer::new(&facts, &[("swap_off".to_owned(), json!(false))].into()).unwrap()
    }

    fn task(when: Option<&str>, repeat: Option<Repeat>) -> Task {
        Task {
            name: None,
            when: when.map(str::to_owned),
            repeat,
            kind: "file".into(),
            arguments: json!({}),
            place: "play.yaml:3".into(),
        }
    }

    #[rstest]
    #[case("facts.cpus > 2", Some(true))]
    #[case("swap_off", Some(false))]
    #[case("not swap_off and facts.hostname == 'web1'", Some(true))]
    #[case("nowhere", None)]
    #[case("facts.cpus >", None)]
    fn conditions(#[case] when: &str, #[case] expected: Option<bool>) {
        let result = renderer().holds(&task(Some(when), None));
        assert_eq!(result.as_ref().ok().copied(), expected, "{result:?}");
        if let Err(failure) = result {
            assert!(failure.sentence.starts_with("play.yaml:3: "), "{failure}");
        }
    }

    #[test]
    fn texts_inside_of_values_are_evaluated() {
        let value = renderer().value(&json!({ "a": ["{{ facts.hostname }}", 7, "plain"] }), "p").unwrap();
        assert_eq!(value, json!({ "a": ["web1", 7, "plain"] }));
    }

    #[test]
    fn loops_over_lists_and_expressions() {
        let items = |repeat| renderer().items(&task(None, Some(repeat))).unwrap();
        assert_eq!(items(Repeat::Items(vec![json!("x")])), [Some(json!("x"))]);
        assert_eq!(items(Repeat::Expression("range(2)".into())), [Some(json!(0)), Some(json!(1))]);
        assert!(renderer().items(&task(None, Some(Repeat::Expression("facts.cpus".into())))).is_err());
    }

    #[test]
    fn an_endless_expression_ends() {
        let endless = "{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}";
        assert!(renderer().text(endless, "p").is_err());
    }
}
