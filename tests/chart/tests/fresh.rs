//! What the chart has from `deploy/` and from its own values is fresh; this needs no helm.

use stowage_chart_tests::{files, templates, values};

#[test]
fn the_charts_templates_are_what_deploy_says() {
    files::is_fresh(templates::FOLDER, &templates::all());
}

#[test]
fn the_charts_schema_is_what_its_values_say() {
    files::file_is_fresh("deploy/helm/stowage/values.schema.json", &values::schema());
}

#[test]
fn the_page_about_the_chart_has_all_its_values() {
    let page = files::read("docs/helm.md");
    files::file_is_fresh("docs/helm.md", &files::between_marks(&page, "values", &values::table()));
}
