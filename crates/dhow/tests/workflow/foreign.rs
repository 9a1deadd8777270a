//! Workflows and files that other programs make and read: hera writes the workflow, pypdf reads the PDF.

use crate::{Desk, guest, node, python};
use std::path::Path;
use std::process::Command;

/// Writes a workflow. hera knows no plugin's body: it goes into what hera makes of the rest.
pub(crate) const HERA: &str = r#"
from hera.workflows import DAG, Parameter, Steps, Workflow, Container, models as m
import json

with Workflow(generate_name="hera-", entrypoint="d", arguments=[Parameter(name="who", value="Ada")]) as w:
    echo = Container(name="echo", image="x", inputs=[Parameter(name="text")])
    make = Container(name="make", image="x", outputs=[Parameter(name="n", value_from=m.ValueFrom(path="/tmp/n"))])
    with Steps(name="s", inputs=[Parameter(name="text")]) as s:
        echo(name="one", arguments={"text": "{{inputs.parameters.text}}"})
        with s.parallel():
            echo(name="two", arguments={"text": "2"})
            echo(name="three", arguments={"text": "3"}, when="1 > 2")
    with DAG(name="d"):
        a = make(name="a")
        b = echo(name="b", arguments={"text": "{{tasks.a.outputs.parameters.n}}"})
        c = echo(name="c", arguments={"text": "{{item}}"}, with_param="[1, 2, 3]")
        d = s(name="d", arguments={"text": "{{workflow.parameters.who}}"})
        a >> b >> d
        c >> d
body = w.to_dict()
for template in body["spec"]["templates"]:
    if "container" in template:
        del template["container"]
        args = ["write", "/tmp/n", "7"] if template["name"] == "make" else ["args", "{{inputs.parameters.text}}"]
        template["plugin"] = {"wasm": {"image": "tool.wasm", "args": args}}
print(json.dumps(body))
"#;

pub(crate) fn run_python(desk: &Desk, script: &str) -> String {
    let output = Command::new(python()).args(["-c", script]).current_dir(desk.path("")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_workflow_that_hera_wrote_runs() {
    let desk = Desk::new();
    let yaml = run_python(&desk, HERA);
    std::fs::write(desk.path("hera.yaml"), yaml).unwrap();
    let lint = desk.dhow(&["argo", "lint", "--for", "cluster", "hera.yaml"]);
    assert_eq!(lint.code, Some(0), "{lint:?}");
    let ended = desk.dhow(&["workflow", "run", "hera.yaml", "--name", "hera", "-p", "who=Grace"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let status = desk.status("hera");
    assert_eq!(node(&status, "b")["outputs"]["result"], r#"["args","7"]"#);
    assert_eq!(node(&status, "c(2:3)")["outputs"]["result"], r#"["args","3"]"#);
    assert_eq!(node(&status, "one")["outputs"]["result"], r#"["args","Grace"]"#);
    assert_eq!(node(&status, "three")["phase"], "Skipped");
}

#[test]
fn letterflow_makes_a_pdf_that_others_read() {
    let desk = Desk::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/letterflow");
    std::fs::copy(example.join("letterflow.yaml"), desk.path("letterflow.yaml")).unwrap();
    std::fs::create_dir(desk.path("build")).unwrap();
    std::fs::copy(guest("letterflow-pages"), desk.path("build/pages.wasm")).unwrap();
    std::fs::write(desk.path("letters.txt"), "First letter.\n\nSecond letter.\n").unwrap();
    let args = ["workflow", "run", "letterflow.yaml", "--name", "letters", "--output", "out"];
    let ended = desk.dhow(&[&args[..], &["-p", "stamp=Seen", "--artifact", "letters=letters.txt"]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let read = "import json, pypdf; print(json.dumps([p.extract_text() for p in pypdf.PdfReader('out/letters.pdf').pages]))";
    let pages: Vec<String> = serde_json::from_str(&run_python(&desk, read)).unwrap();
    assert_eq!(pages.len(), 2);
    assert!(pages[0].contains("First letter.") && pages[0].contains("Seen, page-1.pdf"), "{pages:?}");
    assert!(pages[1].contains("Second letter.") && pages[1].contains("Seen, page-2.pdf"), "{pages:?}");
    let status = desk.status("letters");
    assert_eq!(node(&status, "split")["outputs"]["result"], r#"["page-1.pdf","page-2.pdf"]"#);
    // What Argo is given is the same workflow with another spelling.
    let converted = desk.dhow(&["argo", "convert", "letterflow.yaml"]);
    std::fs::write(desk.path("converted.yaml"), &converted.out).unwrap();
    let lint = desk.dhow(&["argo", "lint", "--for", "cluster", "converted.yaml"]);
    assert_eq!(lint.code, Some(0), "{lint:?}");
    assert_eq!(desk.dhow(&["workflow", "run", "converted.yaml"]).code, Some(0));
}
