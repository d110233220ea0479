//! Templates and conditions: the only user of minijinja. What is not defined is a failure, and work is bounded.

use minijinja::{Environment, Error, UndefinedBehavior};
use serde_json::Value;

use crate::failure::{Failure, Kind, Result};

/// Steps of the template machine before it gives up; ours take some hundreds.
const FUEL: u64 = 200_000;

/// What templates see, by name.
pub(super) type Variables = serde_json::Map<String, Value>;

fn environment<'source>() -> Environment<'source> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    // Files end as their template does.
    environment.set_keep_trailing_newline(true);
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment
}

fn failed(what: &str, error: &Error) -> Failure {
    let place = error.line().map(|line| format!(" at its line {line}")).unwrap_or_default();
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    Failure::new(Kind::Configuration, format!("{what} cannot be evaluated"))
        .caused_by(format!("{}{detail}{place}", error.kind()))
}

/// Whether a text has anything for the template machine to do.
pub(super) fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}

/// Renders a template. `what` names it in a failure.
///
/// # Errors
/// Of kind Configuration: a mistake in the template, or a name that is not defined.
pub(super) fn render(what: &str, template: &str, variables: &Variables) -> Result<String> {
    if !is_template(template) {
        return Ok(template.to_owned());
    }
    environment().render_named_str(what, template, variables).map_err(|error| failed(what, &error))
}

/// The value of an expression.
///
/// # Errors
/// Of kind Configuration: a mistake in the expression, or a name that is not defined.
pub(super) fn evaluate(what: &str, expression: &str, variables: &Variables) -> Result<minijinja::Value> {
    let environment = environment();
    let compiled = environment.compile_expression(expression).map_err(|error| failed(what, &error))?;
    let value = compiled.eval(variables).map_err(|error| failed(what, &error))?;
    if value.is_undefined() {
        return Err(Failure::new(Kind::Configuration, format!("{what} cannot be evaluated"))
            .caused_by(format!("`{expression}` is not defined")));
    }
    Ok(value)
}

/// What is wrong with an expression as it is written, if anything.
pub(super) fn fault_of_expression(expression: &str) -> Option<String> {
    environment().compile_expression(expression).err().map(|error| reason(&error))
}

/// What is wrong with a template as it is written, if anything.
pub(super) fn fault_of_template(template: &str) -> Option<String> {
    environment().template_from_str(template).err().map(|error| reason(&error))
}

fn reason(error: &Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Variables, evaluate, fault_of_expression, fault_of_template, render};

    fn variables() -> Variables {
        let serde_json::Value::Object(variables) = json!({"facts": {"swap": [], "cpus": 2}, "name": "<a>"}) else {
            unreachable!("an object is written above")
        };
        variables
    }

    #[test]
    fn texts_are_rendered_without_escapes_and_keep_their_end() {
        assert_eq!(render("x", "n={{ name }}\n", &variables()).unwrap(), "n=<a>\n");
        assert_eq!(render("x", "{% if facts.cpus > 1 %}\nmany\n{% endif %}\n", &variables()).unwrap(), "many\n\n".trim_end_matches('\n').to_owned() + "\n");
    }

    #[test]
    fn conditions_have_values() {
        assert!(evaluate("when", "facts.cpus == 2 and not facts.swap", &variables()).unwrap().is_true());
        assert!(evaluate("when", "other is not defined", &variables()).unwrap().is_true());
    }

    #[test]
    fn what_is_not_defined_is_a_failure_that_names_the_place() {
        let failure = render("template a.toml", "ok\n{{ other }}", &variables()).unwrap_err();
        assert_eq!(failure.sentence, "template a.toml cannot be evaluated");
        assert!(failure.causes[0].contains("line 2"), "{failure}");
        assert!(evaluate("when", "other", &variables()).is_err());
        assert!(evaluate("when", "facts.other", &variables()).is_err());
    }

    #[test]
    fn endless_work_ends() {
        let template = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
        assert!(render("x", template, &variables()).is_err());
    }

    #[test]
    fn faults_are_found_before_anything_runs() {
        assert!(fault_of_expression("a ==").is_some());
        assert!(fault_of_template("{{ a").is_some());
        assert!(fault_of_expression("a == 1").is_none());
    }
}
