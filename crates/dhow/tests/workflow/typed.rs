//! Steps as calls, in every language that has an SDK for them.

use crate::{Desk, guest, node};

#[test]
fn a_step_is_called_with_values() {
    let desk = Desk::new();
    for (language, gets_files) in [("rust", true), ("python", true), ("js", false)] {
        std::fs::copy(guest(&format!("sdk-{language}-step")), desk.path("step.wasm")).unwrap();
        let outputs = match gets_files {
            true => "parameters: [{name: first}], artifacts: [{name: long, path: /elsewhere}]",
            false => "parameters: [{name: first}]",
        };
        desk.workflow(
            language,
            &format!(
                r#"
  entrypoint: main
  templates:
  - name: main
    steps:
    - - {{name: good, template: words, arguments: {{parameters: [{{name: least, value: "5"}}]}}}}
      - {{name: bad, template: words, arguments: {{parameters: [{{name: least, value: many}}]}}, continueOn: {{failed: true}}}}
  - name: words
    inputs:
      parameters: [{{name: least}}, {{name: text, value: some words are longer}}]
      artifacts: [{{name: text, path: /in/text, raw: {{data: some words are longer}}}}]
    wasm: {{image: step.wasm}}
    outputs: {{{outputs}}}
"#
            ),
        );
        let ended = desk.dhow(&["workflow", "run", &format!("{language}.yaml")]);
        assert_eq!(ended.code, Some(0), "{language}: {ended:?}");
        let status = desk.status(language);
        let good = node(&status, "good");
        assert_eq!(good["phase"], "Succeeded", "{language}: {good}");
        assert_eq!(good["outputs"]["result"], "2", "{language}: {good}");
        assert_eq!(good["outputs"]["parameters"][0]["value"], "words", "{language}: {good}");
        let bad = node(&status, "bad");
        assert_eq!(bad["phase"], "Failed", "{language}: {bad}");
        assert!(!bad["message"].as_str().unwrap().is_empty(), "{language}: {bad}");
        assert_eq!(bad["outputs"]["exitCode"], "1", "{language}: {bad}");
        let logs = desk.dhow(&["workflow", "logs", language, "good"]);
        assert_eq!(logs.out, "2 of 4 words are long\n", "{language}");
    }
    // It is no app.
    let app = desk.dhow(&["run", "step.wasm", "--addr", "127.0.0.1:0"]);
    assert!(app.code != Some(0) && app.err.contains("dhow workflow run"), "{app:?}");
}
