//! What a dry run says.

use serde_json::json;

use super::flags::Form;
use crate::kubernetes::text::yaml;
use crate::node::Rehearsed;

/// A dry run's result: on the host, in the cluster, and what was left out.
pub(super) fn write(told: &Rehearsed, form: Form) -> String {
    let document = json!({ "host": told.host, "objects": told.objects, "leftOut": told.left_out });
    form.write(&document, || text(told))
}

fn text(told: &Rehearsed) -> String {
    let mut parts = vec!["Nothing was altered. On this host, this would be done:\n".to_owned()];
    parts.extend(told.host.iter().map(|line| format!("  {line}")));
    if !told.objects.is_empty() {
        parts.push("\nThese objects would be written to the cluster:\n".to_owned());
        parts.extend(told.objects.iter().map(|object| format!("---\n{}", yaml(object).trim_end())));
    }
    if !told.left_out.is_empty() {
        parts.push(format!("\nLeft out, because a dry run cannot play them: {}", told.left_out.join(", ")));
    }
    parts.join("\n") + "\n"
}
