//! The stand-in answers a script of requests as the real API server answered it.
//!
//! With `STOWAGE_SCRIPT_KUBECONFIG` set to a kubeconfig, the script runs against that server instead;
//! with `STOWAGE_SCRIPT_WRITE` set too, its answers become the files. The server must have the script's
//! custom resource, and no namespace of the script's from an earlier run.

#[path = "../common/api_server_script/mod.rs"]
mod api_server_script;

use std::path::Path;

use stowage_stand_ins::api_server::ResourceType;

use self::api_server_script::{ANSWERS, STREAMING_ANSWERS, script, streaming_script};

#[tokio::test]
async fn the_stand_in_answers_as_the_real_api_server_does() {
    let (server, client) = super::start().await;
    let widgets = ResourceType::custom("script.stowage.dev", "v1", "widgets", "Widget").with_status();
    server.store().install(widgets);
    let client = match std::env::var("STOWAGE_SCRIPT_KUBECONFIG") {
        Ok(path) => super::client_of(&std::fs::read_to_string(path).unwrap()).await,
        Err(_) => client,
    };
    compare("kubernetes-1.36.1.txt", ANSWERS, &script(client.clone()).await);
    compare("kubernetes-1.36.1-streaming.txt", STREAMING_ANSWERS, &streaming_script(client).await);
}

#[track_caller]
fn compare(file: &str, expected: &str, steps: &[(String, String)]) {
    let answers: Vec<String> = steps.iter().map(|(step, outcome)| format!("{step}: {outcome}")).collect();
    if std::env::var_os("STOWAGE_SCRIPT_WRITE").is_some() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/api_server_script");
        std::fs::write(folder.join(file), answers.join("\n") + "\n").unwrap();
        return;
    }
    let expected: Vec<&str> = expected.lines().collect();
    for (expected, answer) in expected.iter().zip(&answers) {
        assert_eq!(answer, expected);
    }
    assert_eq!(answers.len(), expected.len());
}
