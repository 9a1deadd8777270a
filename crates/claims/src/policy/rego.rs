//! Policies in Rego, evaluated in this process.
//!
//! Package `dhow` has a rule `allow`, and perhaps `cause`: texts that say why not. Package `system` has a rule `main` that
//! is both, as OPA's default decision; policies for Waxosuit are written so. A policy is evaluated within a time; its
//! memory is bounded by that, by the size of its files and by what it is asked, and not otherwise.

use super::{Decision, PolicyError, Question, depth, jwt, older};
use dhow_resources::documents;
use dhow_resources::error::ResourceError;
use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, Value};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// Largest file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Files of a policy.
const MAX_FILES: usize = 1000;

/// Folders in folders.
const MAX_DEPTH: usize = 16;

/// A policy has to be read within this time.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// Stack of the interpreter, in bytes: rules need each other, one in the other, as deep as there are rules.
const STACK: usize = 256 << 20;

/// Lines that a policy prints when it is asked; more are not shown.
const MAX_PRINTS: usize = 20;

/// Steps of the interpreter between two looks at the clock.
const CHECK_INTERVAL: NonZeroU32 = NonZeroU32::MIN.saturating_add(63);

/// A policy, ready to be asked.
#[derive(Clone)]
pub struct Rego {
    engine: Engine,
    rule: Rule,
    limit: Duration,
}

/// Where the answer stands.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// `data.dhow.allow`, `data.dhow.cause`
    Dhow,
    /// `data.system.main`
    System,
}

/// What a file of a policy holds, by its name.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Rego,
    Json,
    Yaml,
}

// === impl Kind ===

impl Kind {
    fn of(file: &Path) -> Option<Kind> {
        match file.extension()?.to_str()? {
            "rego" => Some(Kind::Rego),
            "json" => Some(Kind::Json),
            "yaml" | "yml" => Some(Kind::Yaml),
            _ => None,
        }
    }
}

// === impl Rego ===

impl Rego {
    /// Reads a file, or the files of a folder and of those in it: `.rego` but not `_test.rego`, and data in `.json`, `.yaml`
    /// and `.yml`. Any other file but `.md` is an error: one that is not read may have been the one that says no. An
    /// evaluation may take until `limit`. The caller's thread waits, for ten seconds at most.
    pub fn read(path: &Path, limit: Duration) -> Result<Rego, PolicyError> {
        let policy = path.to_owned();
        let read = apart(move || Rego::read_here(&policy, limit), READ_LIMIT);
        read.unwrap_or_else(|why| Err(PolicyError::File { path: path.to_owned(), reason: why }))
    }

    fn read_here(path: &Path, limit: Duration) -> Result<Rego, PolicyError> {
        let mut engine = Engine::new();
        // In OPA a function that is given nonsense has no value, and a cause that needs it is no cause. Here it is an
        // error, and so a refusal.
        engine.set_strict_builtin_errors(true);
        engine.set_gather_prints(true);
        jwt::add_to(&mut engine).map_err(PolicyError::Failed)?;
        engine.set_execution_timer_config(ExecutionTimerConfig { limit, check_interval: CHECK_INTERVAL });
        for file in files(path)? {
            add(&mut engine, path, &file)?;
        }
        depth::check_recursion(&mut engine)
            .map_err(|reason| PolicyError::File { path: path.to_owned(), reason })?;
        let packages = engine.get_packages().map_err(|error| failed(path, &error))?;
        let has = |name: &str| packages.iter().any(|package| package == name);
        let rule = match () {
            () if has("data.dhow") => Rule::Dhow,
            () if has("data.system") => Rule::System,
            () => return Err(PolicyError::NoRule { path: path.to_owned() }),
        };
        Ok(Rego { engine, rule, limit })
    }

    /// Asks; takes as long as the limit allows, on the caller's thread.
    pub fn decide(&self, question: &Question) -> Result<Decision, PolicyError> {
        let (this, question) = (self.clone(), question.clone());
        // What the interpreter does between two looks at the clock takes its time, too.
        let decided = apart(move || this.decide_here(&question), self.limit.saturating_mul(5));
        decided.unwrap_or_else(|why| Err(PolicyError::Failed(why)))
    }

    fn decide_here(&self, question: &Question) -> Result<Decision, PolicyError> {
        let input =
            serde_json::to_string(question).map_err(|error| PolicyError::Failed(error.to_string()))?;
        let input = Value::from_json_str(&input).map_err(|error| PolicyError::Failed(error.to_string()))?;
        // An interpreter remembers what it worked out; each question has one of its own.
        let mut engine = self.engine.clone();
        engine.set_input(input);
        let decided = self.ask(&mut engine);
        // What the policy prints is of use to who writes it.
        for line in engine.take_prints().unwrap_or_default().into_iter().take(MAX_PRINTS) {
            tracing::info!("policy: {}", one_line(&line));
        }
        decided
    }

    fn ask(&self, engine: &mut Engine) -> Result<Decision, PolicyError> {
        match self.rule {
            Rule::System => Decision::of(&self.value(engine, "data.system.main")?),
            Rule::Dhow => {
                let allow = self.value(engine, "data.dhow.allow")?;
                let cause = self.value(engine, "data.dhow.cause")?;
                Decision::of(&match allow {
                    serde_json::Value::Null => allow,
                    allow => serde_json::json!({"allow": allow, "cause": cause}),
                })
            }
        }
    }

    /// What a rule says; null if that is nothing.
    fn value(&self, engine: &mut Engine, rule: &str) -> Result<serde_json::Value, PolicyError> {
        let results = engine.eval_query(rule.to_owned(), false).map_err(|error| self.evaluation(&error))?;
        let value = results.result.first().and_then(|result| result.expressions.first());
        match value.map(|expression| &expression.value) {
            None | Some(Value::Undefined) => Ok(serde_json::Value::Null),
            Some(value) => {
                let text = value.to_json_str().map_err(|error| PolicyError::Garbage(error.to_string()))?;
                serde_json::from_str(&text).map_err(|error| PolicyError::Garbage(error.to_string()))
            }
        }
    }

    fn evaluation(&self, error: &dyn std::fmt::Display) -> PolicyError {
        let text = error.to_string();
        // The interpreter says so in words only.
        match text.contains("execution exceeded time limit") {
            true => PolicyError::TimedOut(self.limit),
            false => PolicyError::Failed(one_line(&text)),
        }
    }
}

/// Works on a thread with a stack that is deep enough, and waits for it. The error is why there is no result.
fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static, limit: Duration) -> Result<T, String> {
    let (result, done) = mpsc::sync_channel(1);
    let work = move || drop(result.send(work()));
    std::thread::Builder::new()
        .name("policy".to_owned())
        .stack_size(STACK)
        .spawn(work)
        .map_err(|error| format!("there is no thread for it: {error}"))?;
    done.recv_timeout(limit).map_err(|error| match error {
        mpsc::RecvTimeoutError::Timeout => format!("it is not done after {limit:?}"),
        mpsc::RecvTimeoutError::Disconnected => "the interpreter panicked".to_owned(),
    })
}

/// The files of a policy, by name: the file itself, or all of a folder and of those in it, but for hidden ones.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, PolicyError> {
    if !std::fs::metadata(path).map_err(|wrong| failed(path, &wrong))?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    collect(path, 0, &mut files)?;
    files.sort();
    Ok(files)
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), PolicyError> {
    let error = |path: &Path, reason: String| PolicyError::File { path: path.to_owned(), reason };
    if depth > MAX_DEPTH {
        return Err(error(
            folder,
            format!("it is in a folder in a folder, {MAX_DEPTH} times; a link may lead in a circle"),
        ));
    }
    for entry in std::fs::read_dir(folder).map_err(|wrong| failed(folder, &wrong))? {
        let path = entry.map_err(|wrong| failed(folder, &wrong))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // Of editors, of version control, and where Kubernetes keeps what its links lead to.
        if name.starts_with('.') {
            continue;
        }
        if std::fs::metadata(&path).map_err(|wrong| failed(&path, &wrong))?.is_dir() {
            collect(&path, depth + 1, files)?;
        } else if Kind::of(&path).is_some() {
            if !name.ends_with("_test.rego") {
                files.push(path);
            }
        } else if !name.ends_with(".md") {
            let what = "it is neither a policy (.rego) nor data (.json, .yaml); move it out of the folder";
            return Err(error(&path, what.to_owned()));
        }
        if files.len() > MAX_FILES {
            return Err(error(folder, format!("there are more than {MAX_FILES} files")));
        }
    }
    Ok(())
}

/// Adds a file; data stands under the names of the folders below `root` in which its file is, as OPA has it, whatever the
/// file's own name. Two files that say different things at one place are an error.
fn add(engine: &mut Engine, root: &Path, file: &Path) -> Result<(), PolicyError> {
    let error = |reason: String| PolicyError::File { path: file.to_owned(), reason };
    let size = std::fs::metadata(file).map_err(|failed| error(failed.to_string()))?.len();
    if size > MAX_FILE {
        return Err(error(format!("it has more than {MAX_FILE} bytes")));
    }
    let text = std::fs::read_to_string(file).map_err(|failed| error(failed.to_string()))?;
    let data = match Kind::of(file) {
        Some(Kind::Json) => Some(serde_json::from_str(&text).map_err(|wrong| failed(file, &wrong))?),
        Some(Kind::Yaml) => Some(documents::parse_json(&text, file).map_err(|wrong| failed_at(&wrong))?),
        // A policy that is named by itself may have any name.
        Some(Kind::Rego) | None => None,
    };
    if let Some(mut data) = data {
        let folders =
            file.parent().and_then(|folder| folder.strip_prefix(root).ok()).unwrap_or(Path::new(""));
        for folder in folders.iter().rev() {
            let name = folder.to_str().ok_or_else(|| error("a folder's name is no UTF-8".to_owned()))?;
            data = serde_json::Value::from_iter([(name, data)]);
        }
        return engine.add_data_json(&data.to_string()).map_err(|wrong| failed(file, &wrong));
    }
    depth::check_nesting(&text).map_err(error)?;
    let name = file.display().to_string();
    let Err(wrong) = engine.add_policy(name.clone(), text.clone()) else { return Ok(()) };
    if !older::may_be_older(&text) {
        return Err(failed(file, &wrong));
    }
    engine.set_rego_v0(true);
    let older = engine.add_policy(name, text);
    engine.set_rego_v0(false);
    older.map(drop).map_err(|_| failed(file, &wrong))
}

fn failed_at(error: &ResourceError) -> PolicyError {
    let ResourceError { file, line, column, message, hint, .. } = error;
    let place = if *line > 0 { format!("line {line}, column {column}: ") } else { String::new() };
    let hint = if hint.is_empty() { String::new() } else { format!("; {hint}") };
    failed(file, &format!("{place}{message}{hint}"))
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> PolicyError {
    PolicyError::File { path: path.to_owned(), reason: one_line(&error.to_string()) }
}

/// The interpreter draws the place of an error on several lines.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(1000).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Event;
    use crate::token::Token;
    use crate::{Claims, KeyPair, ModuleClaims, Role, Subject, Verified};
    use dhow_blocks::grants::Grants;

    const LIMIT: Duration = Duration::from_millis(300);

    fn read(files: &[(&str, &str)]) -> Result<Rego, PolicyError> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = folder.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        Rego::read(folder.path(), LIMIT)
    }

    fn question() -> Question {
        let (account, module) =
            (KeyPair::generate(Role::Account).unwrap(), KeyPair::generate(Role::Module).unwrap());
        let about = ModuleClaims {
            hash: "00".to_owned(),
            tags: vec!["shop".to_owned()],
            capabilities: Some(vec!["wasmcloud:keyvalue".to_owned()]),
            ..ModuleClaims::default()
        };
        let subject = module.public_key().to_string();
        let claims = Claims { subject, about: Subject::Module(about), ..Claims::default() };
        let token = Token::sign(claims, &account).unwrap();
        let verified = Verified { token, chain: Vec::new(), until: None };
        let mut grants = Grants::default();
        grants.allow("state", "statestore").unwrap();
        let module = ("ab".repeat(32), "front.wasm".to_owned());
        Question::new(Event::Load, "front", Some(&verified), module, &grants)
    }

    fn decide(policy: &str) -> Result<Decision, PolicyError> {
        read(&[("policy.rego", policy)])?.decide(&question())
    }

    #[test]
    fn a_policy_sees_the_app_its_token_and_its_grants() {
        for rule in [
            r#"input.app_id == "front""#,
            r#"input.event == "load""#,
            r#"input.claims.tags[_] == "shop""#,
            r#""statestore" in input.grants.state"#,
            r#"not input.request"#,
            r#"startswith(input.claims.issuer, "A")"#,
            r#"[header, claims, _] := io.jwt.decode(input.token); header.alg == "Ed25519"; claims.iss == input.claims.issuer"#,
            r#"[_, claims, _] := io.jwt.decode(input.token); "wasmcloud:keyvalue" in claims.wascap.caps"#,
            r#"not io.jwt.decode("a.b")"#,
            r#"regex.match("^[a-f0-9]{64}$", input.digest)"#,
            r#"semver.compare("1.2.0", "1.10.0") == -1"#,
            r#"input.app_id in data.known"#,
        ] {
            let policy =
                format!("package dhow\nimport rego.v1\ndefault allow := false\nallow if {{ {rule} }}");
            let rego =
                read(&[("policy.rego", policy.as_str()), ("data.json", r#"{"known": ["front"]}"#)]).unwrap();
            let decision = rego.decide(&question()).unwrap();
            assert!(decision.allow, "{rule}");
        }
    }

    #[test]
    fn folders_in_a_folder_are_read_too() {
        let allow = "package dhow\nimport rego.v1\ndefault allow := false\nallow if { not denied; data.lists.known.front == 1 }";
        let deny = "package dhow\nimport rego.v1\ndenied if input.app_id == \"front\"";
        let data = ("lists/known/data.json", r#"{"front": 1}"#);
        let yaml = ("lists/known/people.yaml", "# who\nfront: 0x1");
        let above = ("lists.yml", "lists: { known: { front: 1 }, others: [no, ~] }");
        let ignored = (".git/config", "none of this");
        let decide = |files: &[(&str, &str)]| read(files).unwrap().decide(&question()).unwrap().allow;
        let off = "package dhow\nimport rego.v1\ndenied if false";
        assert!(decide(&[("allow.rego", allow), ("deny/app.rego", off), data, ignored]));
        assert!(!decide(&[("allow.rego", allow), ("deny/app.rego", deny), data]));
        // The same thing twice is no contradiction.
        for files in [&[yaml][..], &[above], &[data, yaml, above]] {
            let policies = [("allow.rego", allow), ("deny/app.rego", off)];
            assert!(decide(&[&policies, files].concat()), "{files:?}");
        }
    }

    #[test]
    fn causes_are_told() {
        let policy = "package dhow\nallow if count(cause) == 0\ncause contains \"too old\" if not input.claims.version\n\
                      cause contains \"no name\" if not input.claims.name";
        // No rule allows it, and an answer that is not there is no yes.
        assert!(matches!(decide(policy), Err(PolicyError::Garbage(_))));
        let decision =
            decide(&policy.replace("package dhow", "package dhow\ndefault allow := false")).unwrap();
        assert_eq!((decision.allow, decision.reason().as_str()), (false, "no name; too old"));
    }

    #[test]
    fn policies_for_waxosuit_are_read() {
        let policy = r#"
            package system
            import input
            main = {"allow": allow, "cause": cause}
            default allow = false
            token = {"payload": payload} { [_, payload, _] := io.jwt.decode(input.token) }
            allow { token.payload.wascap.caps[_] == "wasmcloud:keyvalue" }
            cause[reason] { not allow; reason := "no key-value" }
        "#;
        assert!(decide(policy).unwrap().allow);
        let decision = decide(&policy.replace("wasmcloud:keyvalue", "wasmcloud:messaging")).unwrap();
        assert_eq!((decision.allow, decision.reason().as_str()), (false, "no key-value"));
    }

    #[test]
    fn whatever_is_no_clear_yes_is_a_refusal() {
        let garbage = |policy: &str| matches!(decide(policy), Err(PolicyError::Garbage(_)));
        assert!(garbage("package dhow\nallow := \"yes\""));
        assert!(garbage("package dhow\nother := true"));
        assert!(garbage("package dhow\nallow := 1"));
        assert!(garbage("package system\nmain := {\"allow\": [true]}"));
        assert!(garbage("package dhow\nallow := true\ncause := {\"a\": 1}"));
        assert!(matches!(decide("package dhow\nallow := true\nallow := false"), Err(PolicyError::Failed(_))));
        assert!(decide("package dhow\nallow := nothing.there(1)").is_err());
    }

    #[test]
    fn a_policy_that_loops_is_stopped() {
        let rounds = "numbers.range(1, 3000)";
        let policy = format!(
            "package dhow\nallow if count([1 | some x in {rounds}; some y in {rounds}; some z in {rounds}; x + y == z]) > 0"
        );
        let began = std::time::Instant::now();
        let decision = decide(&policy);
        assert_eq!(decision, Err(PolicyError::TimedOut(LIMIT)));
        assert!(began.elapsed() < LIMIT * 20, "{:?}", began.elapsed());
    }

    #[test]
    fn a_policy_without_end_does_not_end_the_process() {
        for policy in ["package dhow\nf(x) := f(x)\nallow if f(1)", "package dhow\nallow if allow"] {
            let error = decide(policy).unwrap_err().to_string();
            assert!(error.contains("recursion"), "{error}");
        }
        // As deep as rules may be.
        let wrapped =
            |number: usize| format!("r{number} if {{ count([[[y | y := r{}]]]) == 1 }}\n", number + 1);
        let rules: String = (0..4990).map(wrapped).collect();
        let policy = format!("package dhow\nallow if r0\n{rules}r4990 := true");
        // Said in time, or not; the process lives.
        let decided = decide(&policy);
        assert!(
            matches!(&decided, Ok(Decision { allow: true, .. }) | Err(PolicyError::TimedOut(_))),
            "{decided:?}"
        );
        let nested = format!("package dhow\nallow if {{ x := {}1{}; x }}", "[".repeat(22), "]".repeat(22));
        assert!(decide(&nested).unwrap_err().to_string().contains("line 2: brackets"));
    }

    #[test]
    fn broken_files_are_named() {
        for (files, words) in [
            (&[("a.rego", "package dhow\nallow if {")][..], "a.rego"),
            (&[("b.json", "{"), ("a.rego", "package dhow\nallow := true")], "b.json"),
            (&[("a.rego", "package other\nallow := true")], "package dhow"),
            (&[], "package dhow"),
            (&[("a_test.rego", "package dhow\nallow := true")], "package dhow"),
            (
                &[("a.rego", "package dhow\nallow := true"), ("lists/data.yaml", "a: [")],
                "data.yaml: line 2, column 1",
            ),
            (
                &[("a.rego", "package dhow\nallow := true"), ("data.yml", "a: 1\na: 2")],
                "`a` stands here twice",
            ),
            (
                &[("a.rego", "package dhow\nallow := true"), ("data.yml", "a: 1\n---\nb: 2")],
                "second document",
            ),
            (&[("a.rego", "package dhow\nallow := true"), ("data.yml", "- a")], "data must be object"),
            (
                &[
                    ("a.rego", "package dhow\nallow := true"),
                    ("a.json", r#"{"b": {"c": 1}}"#),
                    ("b/c.yaml", "c: 2"),
                ],
                "c.yaml",
            ),
            (&[("a.rego", "package dhow\nallow := true"), ("deny.reg", "package dhow")], "deny.reg"),
            (
                &[("a.rego", "package dhow\nallow := true"), ("b/c/d.rego", "package dhow\nallow if {")],
                "d.rego",
            ),
        ] {
            let error = read(files).map(drop).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains('\n'), "{error}");
        }
        assert!(Rego::read(Path::new("/nowhere/at/all.rego"), LIMIT).is_err());
    }
}
