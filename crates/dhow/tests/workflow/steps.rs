//! What a step is given, what it yields, and what becomes of it.

use crate::{Desk, Ended, guest, node};
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn parameters_artifacts_and_results_go_from_step_to_step() {
    let desk = Desk::new();
    desk.workflow(
        "flow",
        r#"
  entrypoint: main
  arguments:
    parameters: [{name: text, value: hello}]
  templates:
  - name: main
    steps:
    - - {name: write, template: write, arguments: {parameters: [{name: text, value: "{{workflow.parameters.text}}"}]}}
    - - name: read
        template: read
        arguments: {artifacts: [{name: file, from: "{{steps.write.outputs.artifacts.file}}"}]}
      - {name: list, template: list, arguments: {artifacts: [{name: folder, from: "{{steps.write.outputs.artifacts.packed}}"}]}}
    - - {name: env, template: env, arguments: {parameters: [{name: the-result, value: "{{steps.read.outputs.result}}"}]}}
    outputs:
      parameters:
      - {name: said, valueFrom: {parameter: "{{steps.read.outputs.result}}"}}
      - {name: from-file, valueFrom: {parameter: "{{steps.write.outputs.parameters.content}}"}}
      artifacts:
      - {name: file, from: "{{steps.write.outputs.artifacts.file}}"}
  - name: write
    inputs: {parameters: [{name: text}]}
    wasm: {image: tool.wasm, args: [write, /data/out/file.txt, "{{inputs.parameters.text}}"]}
    outputs:
      parameters: [{name: content, valueFrom: {path: /data/out/file.txt}}]
      artifacts:
      - {name: file, path: /data/out/file.txt}
      - {name: packed, path: /data/out, archive: {tar: {compressionLevel: 9}}}
      - {name: nothing, path: /data/nothing, optional: true}
  - name: read
    inputs: {artifacts: [{name: file, path: /in/renamed.txt, mode: 0400}]}
    wasm: {image: tool.wasm, args: [cat, /in/renamed.txt]}
  - name: list
    inputs: {artifacts: [{name: folder, path: /in/folder}]}
    wasm: {image: tool.wasm, args: [ls, /in/folder]}
  - name: env
    inputs: {parameters: [{name: the-result}]}
    wasm: {image: tool.wasm, args: [env], env: [{name: EXTRA, value: more}]}
"#,
    );
    let ended =
        desk.dhow(&["workflow", "run", "flow.yaml", "-p", "text=good {{day}}", "--output", "results"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.out, "said=good {{day}}\nfrom-file=good {{day}}\n");
    assert_eq!(std::fs::read_to_string(desk.path("results/file.txt")).unwrap(), "good {{day}}");
    let status = desk.status("flow");
    assert_eq!(node(&status, "list")["outputs"]["result"], r#"["file.txt"]"#);
    let env = node(&status, "env")["outputs"]["result"].as_str().unwrap();
    let env: serde_json::Value = serde_json::from_str(env).unwrap();
    assert_eq!((&env["THE_RESULT"], &env["EXTRA"]), (&"good {{day}}".into(), &"more".into()));
    assert_eq!(node(&status, "write")["type"], "Plugin");
    assert_eq!(status["status"]["phase"], "Succeeded");
    // What it printed is kept.
    let logs = desk.dhow(&["workflow", "logs", "flow", "read"]);
    assert_eq!(logs.out, "good {{day}}\n");
    // A name is used once.
    let again = desk.dhow(&["workflow", "run", "flow.yaml"]);
    assert!(again.code == Some(1) && again.err.contains("already"), "{again:?}");
    assert_eq!(desk.dhow(&["workflow", "delete", "flow"]).code, Some(0));
    assert_eq!(desk.dhow(&["workflow", "run", "flow.yaml"]).code, Some(0));
}

#[test]
fn what_becomes_of_a_step() {
    let desk = Desk::new();
    std::fs::copy(guest("http-hello"), desk.path("service.wasm")).unwrap();
    // The template, the phase of its node, and a part of its message.
    let cases = [
        ("wasm: {image: tool.wasm, args: [exit, '0']}", "Succeeded", ""),
        ("wasm: {image: tool.wasm, args: [exit, '3']}", "Failed", "Error (exit code 3)"),
        ("wasm: {image: tool.wasm, args: [nonsense]}", "Failed", "no such command"),
        ("wasm: {image: tool.wasm, args: [sleep, '60000']}\n    timeout: 300ms", "Failed", "deadline"),
        (
            "wasm: {image: tool.wasm, args: [sleep, '60000']}\n    activeDeadlineSeconds: 1",
            "Failed",
            "deadline",
        ),
        ("wasm: {image: missing.wasm}", "Error", "missing.wasm does not exist"),
        (
            "wasm: {image: 'http://me:S3CRET@127.0.0.1:1/none.wasm?sig=S3CRET'}",
            "Error",
            "module http://127.0.0.1:1/none.wasm: ",
        ),
        ("wasm: {image: service.wasm}", "Error", "is no program"),
        (
            "wasm: {image: tool.wasm, args: [args]}\n    outputs: {artifacts: [{name: a, path: /a}]}",
            "Error",
            "required artifact 'a' not supplied",
        ),
        (
            "wasm: {image: tool.wasm, args: [args]}\n    outputs: {parameters: [{name: p, valueFrom: {path: /p}}]}",
            "Error",
            "/p does not exist",
        ),
        ("wasm: {image: tool.wasm, args: [cat, /etc/passwd]}", "Failed", "/etc/passwd"),
        ("wasm: {image: tool.wasm, args: [cat, ../../../../../../../etc/passwd]}", "Failed", "passwd"),
    ];
    for (index, (template, phase, message)) in cases.iter().enumerate() {
        let name = format!("case-{index}");
        desk.workflow(&name, &format!("  entrypoint: m\n  templates:\n  - name: m\n    {template}\n"));
        let ended = desk.dhow(&["workflow", "run", &format!("{name}.yaml")]);
        assert_eq!(ended.code, Some(i32::from(*phase != "Succeeded")), "{template}: {ended:?}");
        let status = desk.status(&name);
        assert_eq!(node(&status, &name)["phase"], *phase, "{template}: {ended:?}");
        let found = node(&status, &name)["message"].as_str().unwrap();
        assert!(found.contains(message), "{template}: {found}");
        assert!(!found.contains("S3CRET"), "{template}: {found}");
    }
}

#[test]
fn a_step_that_fails_leaves_what_there_is() {
    let desk = Desk::new();
    desk.workflow(
        "fails",
        r#"
  entrypoint: main
  templates:
  - name: main
    steps:
    - - {name: test, template: test, continueOn: {failed: true}}
    - - name: show
        template: show
        arguments:
          artifacts: [{name: report, from: "{{steps.test.outputs.artifacts.report}}"}]
          parameters: [{name: said, value: "{{steps.test.outputs.parameters.said}} {{steps.test.exitCode}}"}]
  - name: test
    wasm: {image: tool.wasm, args: [fail, /report, bad, '137']}
    outputs:
      parameters: [{name: none, valueFrom: {path: /none}}, {name: said, valueFrom: {path: /report}}]
      artifacts: [{name: none, path: /none}, {name: report, path: /report}]
  - name: show
    inputs: {parameters: [{name: said}], artifacts: [{name: report, path: "/bad 137"}]}
    wasm: {image: tool.wasm, args: [cat, "/{{inputs.parameters.said}}"]}
"#,
    );
    let ended = desk.dhow(&["workflow", "run", "fails.yaml"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let status = desk.status("fails");
    let test = node(&status, "test");
    assert_eq!((&test["phase"], &test["message"]), (&"Failed".into(), &"Error (exit code 137)".into()));
    assert_eq!(node(&status, "show")["outputs"]["result"], "bad");
}

#[test]
fn the_time_of_a_step_is_over_wherever_it_is() {
    let desk = Desk::new();
    // The system takes connections for it, and nobody ever answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x.wasm", silent.local_addr().unwrap());
    let cases = [
        format!("wasm: {{image: '{url}'}}"),
        format!(
            "wasm: {{image: tool.wasm, args: [args]}}\n    inputs: {{artifacts: [{{name: a, path: /a, http: {{url: '{url}'}}}}]}}"
        ),
        format!(
            "wasm: {{image: tool.wasm, args: [write, /a, text]}}\n    outputs: {{artifacts: [{{name: a, path: /a, http: {{url: '{url}'}}}}]}}"
        ),
    ];
    for (index, template) in cases.iter().enumerate() {
        for limit in ["timeout: 3s", "activeDeadlineSeconds: 3"] {
            let name = format!("late-{index}");
            let spec = format!("  entrypoint: m\n  templates:\n  - name: m\n    {limit}\n    {template}\n");
            desk.workflow(&name, &spec);
            let ended = desk.dhow(&["workflow", "run", &format!("{name}.yaml")]);
            let status = desk.status(&name);
            let node = node(&status, &name);
            assert_eq!(node["phase"], "Failed", "{template}: {ended:?}");
            assert_eq!(node["message"], "Pod was active on the node longer than the specified deadline");
            // Whoever moved something saw that nobody waits any more.
            assert!(!ended.err.contains("tried again"), "{template}: {ended:?}");
            assert_eq!(desk.dhow(&["workflow", "delete", &name]).code, Some(0));
        }
    }
}

#[test]
fn an_interruption_waits_for_no_server() {
    let desk = Desk::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x", silent.local_addr().unwrap());
    desk.workflow(
        "hangs",
        &format!(
            "  entrypoint: m\n  templates:\n  - name: m\n    inputs: {{artifacts: [{{name: a, path: /a, http: {{url: '{url}'}}}}]}}\n    \
             wasm: {{image: tool.wasm, args: [args]}}\n"
        ),
    );
    let run = desk.start(&["workflow", "run", "hangs.yaml"]);
    // It has asked for the artifact.
    let (connection, _) = silent.accept().unwrap();
    let interrupted = Instant::now();
    let id = run.id().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &id]).status().unwrap().success());
    let ended: Ended = run.wait_with_output().unwrap().into();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(!ended.err.contains("tried again"), "{ended:?}");
    // The server's silence would be waited for two minutes.
    assert!(interrupted.elapsed() < Duration::from_secs(60), "{:?}", interrupted.elapsed());
    drop(connection);
}

#[test]
fn modules_of_the_earlier_plugin_find_their_files() {
    let desk = Desk::new();
    desk.workflow(
        "earlier",
        r#"
  entrypoint: main
  templates:
  - name: main
    steps:
    - - {name: input, template: input}
    - - {name: said, template: said}
    - - {name: told, template: tell, arguments: {parameters: [{name: x, value: "{{steps.said.outputs.parameters.colour}}"}]}}
  - name: input
    inputs:
      parameters: [{name: p, value: v}]
      artifacts: [{name: a, path: /tmp/a.txt, raw: {data: in}}]
    wasm: {image: tool.wasm, args: [cat, /work/input.json]}
  - name: said
    outputs: {parameters: [{name: colour}]}
    wasm:
      image: tool.wasm
      args:
      - write
      - /work/result.json
      - '{"phase": "Succeeded", "message": "done", "outputs": {"artifacts": [], "parameters": [{"name": "colour", "value": "red"}]}}'
  - name: tell
    inputs: {parameters: [{name: x}]}
    wasm: {image: tool.wasm, args: [args, "{{inputs.parameters.x}}"]}
"#,
    );
    let ended = desk.dhow(&["workflow", "run", "earlier.yaml"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let status = desk.status("earlier");
    let input = node(&status, "input")["outputs"]["result"].as_str().unwrap();
    let input: serde_json::Value = serde_json::from_str(input).unwrap();
    let expected = serde_json::json!({
        "workflow_name": "earlier", "plugin_options": [],
        "parameters": [{"name": "p", "value": "v"}], "artifacts": [{"name": "a", "path": "/tmp/a.txt"}],
    });
    assert_eq!(input, expected);
    assert_eq!(node(&status, "said")["message"], "done");
    assert_eq!(node(&status, "told")["outputs"]["result"], r#"["args","red"]"#);
}

#[test]
fn mistakes_are_told_with_their_place() {
    let desk = Desk::new();
    desk.workflow(
        "wrong",
        "
  entrypoint: mian
  templates:
  - name: main
    steps:
    - - {name: a, template: other, argumnets: {}}
  - name: box
    container: {image: debian}
",
    );
    let lint = desk.dhow(&["argo", "lint", "wrong.yaml"]);
    assert_eq!(lint.code, Some(1));
    assert!(
        lint.out.contains("wrong.yaml:10:36: spec.templates[0].steps[0][0]: unknown field `argumnets`"),
        "{lint:?}"
    );
    assert!(lint.out.contains("did you mean `arguments`?"), "{lint:?}");
    let text = std::fs::read_to_string(desk.path("wrong.yaml")).unwrap();
    std::fs::write(desk.path("wrong.yaml"), text.replace(", argumnets: {}", "")).unwrap();
    let lint = desk.dhow(&["argo", "lint", "wrong.yaml"]);
    let expected = "\
wrong.yaml:6:3: spec.entrypoint: there is no template `mian`; did you mean `main`?
wrong.yaml:10:19: spec.templates[0].steps[0][0].template: there is no template `other`
";
    assert_eq!(lint.out, expected);
    // A file with nothing in it has a name as well.
    std::fs::write(desk.path("empty.yaml"), "# later\n").unwrap();
    let run = desk.dhow(&["workflow", "run", "empty.yaml"]);
    assert!(run.err.contains("error: empty.yaml: there is nothing in it; expected a Workflow"), "{run:?}");
    // A container is no mistake, but nothing that can be run here.
    let run = desk.dhow(&["workflow", "run", "wrong.yaml"]);
    assert_eq!(run.code, Some(2));
    assert!(
        run.err.contains("spec.templates[1].container: runs a container, which needs a cluster"),
        "{run:?}"
    );
    assert_eq!(desk.dhow(&["workflow", "list"]).out.lines().count(), 1);
}

#[test]
fn a_name_leads_nowhere_else() {
    let desk = Desk::new();
    let spec = "
  entrypoint: main
  templates:
  - {name: main, wasm: {image: tool.wasm, args: [args, x]}}
";
    desk.workflow("good", spec);
    desk.workflow("bad", spec);
    let text = std::fs::read_to_string(desk.path("bad.yaml")).unwrap();
    std::fs::write(desk.path("bad.yaml"), text.replace("name: bad", "name: ../../../outside")).unwrap();
    let before = std::fs::read_dir(desk.folder.path()).unwrap().count();
    let long = "a".repeat(254);
    for name in ["../../../outside", "..", "a/b", "", "x y", "Upper", "-a", &long] {
        let run = desk.dhow(&["workflow", "run", "good.yaml", "--name", name]);
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.err.contains("--name"), "{run:?}");
    }
    for args in [["argo", "lint", "bad.yaml"], ["workflow", "run", "bad.yaml"]] {
        let ended = desk.dhow(&args);
        assert_ne!(ended.code, Some(0), "{ended:?}");
        let told = format!("{}{}", ended.out, ended.err);
        assert!(told.contains("metadata.name: `../../../outside` is no name"), "{told}");
    }
    // Nothing was made for any of them, not even the data folder.
    assert_eq!(std::fs::read_dir(desk.folder.path()).unwrap().count(), before);
    // The longest name is one, and has its log.
    let longest = "a".repeat(253);
    let run = desk.dhow(&["workflow", "run", "good.yaml", "--name", &longest]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(desk.dhow(&["workflow", "logs", &longest]).out.contains(r#"["args","x"]"#));
}

#[test]
fn a_parameter_is_one_of_its_values() {
    let desk = Desk::new();
    desk.workflow(
        "env",
        "
  entrypoint: main
  arguments: {parameters: [{name: env, value: dev, enum: [dev, prod]}]}
  templates:
  - {name: main, wasm: {image: tool.wasm, args: [args, \"{{workflow.parameters.env}}\"]}}
",
    );
    let run = desk.dhow(&["workflow", "run", "env.yaml", "-p", "env=prodd"]);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.err.contains("--parameter env: `prodd` is none of dev, prod"), "{run:?}");
    assert_eq!(desk.dhow(&["workflow", "run", "env.yaml", "-p", "env=prod"]).code, Some(0));
}

#[test]
fn what_a_workflow_yields_and_prints_is_found_by_its_names() {
    let desk = Desk::new();
    desk.workflow(
        "named",
        r#"
  entrypoint: main
  arguments: {parameters: [{name: text, valueFrom: {configMapKeyRef: {name: texts, key: hello}}}]}
  templates:
  - name: main
    steps:
    - - {name: a, template: yields}
      - {name: b, template: say, withItems: [p, q]}
  - name: yields
    retryStrategy: {limit: 1}
    wasm: {image: tool.wasm, args: [write, "{{outputs.artifacts.f.path}}", "{{workflow.parameters.text}}"]}
    outputs:
      parameters: [{name: p, globalName: shared, valueFrom: {path: /out/f}}]
      artifacts: [{name: f, path: /out/f, globalName: file}]
  - name: say
    wasm: {image: tool.wasm, args: [args, "{{steps.name}}"]}
"#,
    );
    let mut text = std::fs::read_to_string(desk.path("named.yaml")).unwrap();
    text += "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: texts}\ndata: {hello: 'hello {{you}}'}\n";
    std::fs::write(desk.path("named.yaml"), text).unwrap();
    let run = desk.dhow(&["workflow", "run", "named.yaml", "--output", "out"]);
    assert_eq!((run.code, run.out.as_str()), (Some(0), "shared=hello {{you}}\n"), "{run:?}");
    assert_eq!(std::fs::read_to_string(desk.path("out/file")).unwrap(), "hello {{you}}");
    let outputs = &desk.status("named")["status"]["outputs"];
    assert_eq!(outputs["parameters"][0]["name"], "shared");
    assert_eq!(outputs["artifacts"][0]["name"], "file");
    for (step, expected) in [
        ("b", "b(0:p): [\"args\",\"b(0:p)\"]\nb(1:q): [\"args\",\"b(1:q)\"]\n"),
        ("b(1:q)", "[\"args\",\"b(1:q)\"]\n"),
    ] {
        assert_eq!(desk.dhow(&["workflow", "logs", "named", step]).out, expected);
    }
    assert_eq!(desk.dhow(&["workflow", "logs", "named", "a"]).code, Some(0));
    assert_eq!(desk.dhow(&["workflow", "logs", "named", "nothing"]).code, Some(2));
}

#[test]
fn what_is_missing_is_told_before_anything_begins() {
    let desk = Desk::new();
    desk.workflow(
        "needs",
        "
  entrypoint: main
  arguments: {parameters: [{name: p}]}
  templates:
  - name: main
    inputs: {artifacts: [{name: a, path: /a}]}
    wasm: {image: tool.wasm, args: [args, '{{workflow.parameters.p}}']}
",
    );
    std::fs::write(desk.path("a.txt"), "a").unwrap();
    let cases: [(&[&str], &str); 5] = [
        (&[], "needs.yaml: the parameter `p` has no value: give it one with -p p=VALUE"),
        (&["-p", "p=1"], "the artifact `a` is nowhere: give it with --artifact a=PATH"),
        (
            &["-p", "p=1", "-a", "aa=a.txt"],
            "--artifact aa: the workflow has no such artifact; did you mean `a`?",
        ),
        (&["--entrypoint", "mian"], "entrypoint: there is no template `mian`; did you mean `main`?"),
        (&["-p", "q=1"], "--parameter q: the workflow has no such parameter; did you mean `p`?"),
    ];
    for (args, expected) in cases {
        let run = desk.dhow(&[&["workflow", "run", "needs.yaml"], args].concat());
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.err.contains(expected), "{run:?}");
    }
    assert_eq!(desk.dhow(&["workflow", "list"]).out.lines().count(), 1);
    let run = desk.dhow(&["workflow", "run", "needs.yaml", "-p", "p=1", "-a", "a=a.txt"]);
    assert_eq!(run.code, Some(0), "{run:?}");
}
