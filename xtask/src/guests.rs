//! Compiles guests: test guests (`guests/`), bench guests (`bench/guests/`), apps of the examples and of the SDKs.
//!
//! Nothing lists them. A folder is a guest, and what lies in it says its language: `Cargo.toml` Rust (a
//! workspace gives one guest a member), a `.js` file JavaScript, `assembly/index.ts` AssemblyScript (`index.ts` that of
//! 2021), `app.py` Python, `go.mod` Go, `main.c` C. The result is `<target>/guests/<name>.wasm`, where a bench guest's name begins with `bench-`, an app's with its
//! example's name and an SDK's with `sdk-<language>-`. A stamp of the sources and the compilers' versions decides what is compiled again.

use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{fs, thread};

use crate::env::Env;
use crate::process::{self, command, run_quietly};
use crate::setup::{self, AS_2021_PACKAGES, AS_PACKAGES, JS_PACKAGES, PYTHON_PACKAGES};
use crate::stamp;

/// A folder that compiles to one or more modules.
pub struct Guest {
    /// What the names of its modules begin with, such as `bench-`.
    prefix: String,
    folder: PathBuf,
    language: Language,
    /// The SDK of its language, if it may use that.
    sdk: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Rust,
    JavaScript,
    AssemblyScript,
    AssemblyScript2021,
    Python,
    Go,
    C,
}

/// Compiles all guests, or those with a folder or a module whose name contains one of `args`.
pub fn run(args: &[String], env: &Env) -> Result<(), String> {
    let mut guests = all(env)?;
    if !args.is_empty() {
        guests.retain(|guest| {
            let modules = guest.modules().unwrap_or_default();
            let named = |arg: &str| modules.iter().any(|(module, _)| module.contains(arg));
            args.iter().any(|arg| named(arg) || name(&guest.folder).contains(arg.as_str()))
        });
    }
    if guests.is_empty() {
        return Err(format!("no guest's name contains {}; leave the names out for all", args.join(" or ")));
    }
    build(&guests, env)
}

/// The apps of one example.
pub fn example(name: &str, env: &Env) -> Result<(), String> {
    let mut guests = all(env)?;
    guests.retain(|g| g.prefix == format!("{name}-"));
    build(&guests, env)
}

/// The manifests of the Rust guests: workspaces of their own, which cargo does not reach from the root.
pub fn cargo_manifests(env: &Env) -> Result<Vec<PathBuf>, String> {
    let rust = all(env)?.into_iter().filter(|g| g.language == Language::Rust);
    Ok(rust.map(|g| g.folder.join("Cargo.toml")).collect())
}

fn all(env: &Env) -> Result<Vec<Guest>, String> {
    let mut guests = Vec::new();
    let mut within = |folder: &Path, prefix: &str| -> Result<(), String> {
        for folder in folders(folder)? {
            if let Some(language) = language(&folder) {
                let apps = ["examples", "sdk"].map(|apps| env.root.join(apps));
                let may_use = apps.iter().any(|apps| folder.starts_with(apps));
                let sdk = may_use.then(|| language.sdk()).flatten().map(|sdk| env.root.join("sdk").join(sdk));
                guests.push(Guest { prefix: prefix.to_owned(), folder, language, sdk });
            }
        }
        Ok(())
    };
    within(&env.root.join("guests"), "")?;
    within(&env.root.join("bench/guests"), "bench-")?;
    for example in folders(&env.root.join("examples"))? {
        within(&example, &format!("{}-", name(&example)))?;
    }
    for sdk in folders(&env.root.join("sdk"))? {
        within(&sdk, &format!("sdk-{}-", name(&sdk)))?;
    }
    Ok(guests)
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    if folder.is_dir() {
        for entry in fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))? {
            let path = entry.map_err(|e| format!("{}: {e}", folder.display()))?.path();
            if path.is_dir() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn name(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn language(folder: &Path) -> Option<Language> {
    let marks = [
        ("Cargo.toml", Language::Rust),
        ("app.py", Language::Python),
        ("go.mod", Language::Go),
        ("main.c", Language::C),
        ("assembly/index.ts", Language::AssemblyScript),
        ("index.ts", Language::AssemblyScript2021),
    ];
    let marked =
        marks.into_iter().find(|(mark, _)| folder.join(mark).is_file()).map(|(_, language)| language);
    marked.or_else(|| script(folder).map(|_| Language::JavaScript))
}

/// The one JavaScript file of a folder.
fn script(folder: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    files.filter(|file| file.extension().is_some_and(|e| e == "js")).min()
}

/// Which system a Rust guest is for.
fn rust_target(package: &str) -> &'static str {
    match package {
        package if package.starts_with("proxy-core") || package.starts_with("wapc-") => {
            "wasm32-unknown-unknown"
        }
        package if package.starts_with("p1-") || package.starts_with("proxy-") => "wasm32-wasip1",
        _ => "wasm32-wasip2",
    }
}

fn build(guests: &[Guest], env: &Env) -> Result<(), String> {
    let has = |language| guests.iter().any(|g| g.language == language);
    if has(Language::Rust) {
        setup::rust_targets(env)?;
    }
    if has(Language::JavaScript) {
        setup::javascript(env)?;
    }
    if has(Language::AssemblyScript) || has(Language::AssemblyScript2021) {
        setup::assembly_script(env)?;
    }
    if has(Language::Python) || has(Language::Go) && env.which("go").is_none() {
        setup::python_and_go(env)?;
    }
    if guests.iter().any(Guest::needs_c) {
        setup::c(env)?;
    }
    fs::create_dir_all(env.guests()).map_err(|e| format!("{}: {e}", env.guests().display()))?;
    // Cargo has its own lock, so two lanes: Rust, and everything else.
    let lane = |rust: bool| -> Result<(), String> {
        guests.iter().filter(|g| (g.language == Language::Rust) == rust).try_for_each(|g| g.build(env))
    };
    thread::scope(|scope| {
        let others = scope.spawn(|| lane(false));
        lane(true)?;
        others.join().map_err(|_| "the build of a guest panicked".to_owned())?
    })
}

// === impl Language ===

impl Language {
    /// The folder of its SDK.
    fn sdk(self) -> Option<&'static str> {
        match self {
            Language::Rust => Some("rust"),
            Language::JavaScript => Some("js"),
            Language::Python => Some("python"),
            Language::Go => Some("go"),
            Language::AssemblyScript | Language::AssemblyScript2021 | Language::C => None,
        }
    }
}

// === impl Guest ===

impl Guest {
    fn build(&self, env: &Env) -> Result<(), String> {
        let from = Instant::now();
        let modules = self.modules()?;
        let stamp = env.guests().join(".stamps").join(format!("{}{}", self.prefix, name(&self.folder)));
        let wit = env.root.join("wit");
        let sources = [self.folder.as_path(), &wit].into_iter().chain(self.sdk.as_deref());
        let sources: Vec<&Path> = sources.collect();
        let content = format!("{}\n{}", stamp::digest(&sources)?, self.compiler(env)?);
        if modules.iter().any(|(module, _)| !self.output(env, module).is_file()) {
            // A module was removed by hand: the stamp speaks of what is no longer there.
            let _ = fs::remove_file(&stamp);
        }
        let made = stamp::once(&stamp, &content, || match self.language {
            Language::Rust => self.rust(env, &modules),
            Language::JavaScript => self.javascript(env),
            Language::AssemblyScript => self.assembly_script(env),
            Language::AssemblyScript2021 => self.assembly_script_2021(env),
            Language::Python => self.python(env),
            Language::Go => self.go(env),
            Language::C => self.c(env),
        })?;
        for (module, _) in &modules {
            let output = self.output(env, module);
            self.give_to_example(env, module, &output)?;
            let size = fs::metadata(&output).map_err(|e| format!("{}: {e}", output.display()))?.len();
            let time =
                if made { format!("{:.1} s", from.elapsed().as_secs_f64()) } else { "unchanged".to_owned() };
            println!("  {:<28} {:>9} KiB  {time}", name(&output), size.div_ceil(1024));
        }
        Ok(())
    }

    /// The modules that come out of the folder, each with cargo's name for its package.
    fn modules(&self) -> Result<Vec<(String, String)>, String> {
        let named = |folder: &Path| {
            let package = name(folder);
            let module = package.strip_prefix(&self.prefix).unwrap_or(&package);
            (format!("{}{module}", self.prefix), package.clone())
        };
        if self.language == Language::Rust && !self.folder.join("src").is_dir() {
            let mut members = folders(&self.folder)?;
            members.retain(|member| member.join("Cargo.toml").is_file());
            return Ok(members.iter().map(|m| named(m)).collect());
        }
        Ok(vec![named(&self.folder)])
    }

    fn output(&self, env: &Env, module: &str) -> PathBuf {
        env.guests().join(format!("{module}.wasm"))
    }

    /// What the result depends on beside its sources.
    fn compiler(&self, env: &Env) -> Result<String, String> {
        Ok(match self.language {
            Language::Rust => process::output(command(env, "rustc").arg("-V"))?,
            Language::JavaScript => JS_PACKAGES.join(" "),
            Language::AssemblyScript => AS_PACKAGES.join(" "),
            Language::AssemblyScript2021 => AS_2021_PACKAGES.join(" "),
            Language::Python => PYTHON_PACKAGES.join(" "),
            Language::Go => {
                process::output(command(env, &go(env)).env("GOTOOLCHAIN", "local").arg("version"))?
            }
            Language::C => process::output(command(env, "clang").arg("--version"))?,
        })
    }

    fn rust(&self, env: &Env, modules: &[(String, String)]) -> Result<(), String> {
        let built = env.target.join("guests-rust");
        for target in setup::RUST_TARGETS {
            let is_preview1 = self.is_configured("target = \"wasm32-wasip1\"");
            let target_of = |package: &str| if is_preview1 { "wasm32-wasip1" } else { rust_target(package) };
            let of_target: Vec<_> =
                modules.iter().filter(|(_, package)| target_of(package) == target).collect();
            if of_target.is_empty() {
                continue;
            }
            let mut cargo = command(env, "cargo");
            cargo.args(["build", "--quiet", "--release", "--locked", "--target", target]);
            cargo.current_dir(&self.folder).env("CARGO_TARGET_DIR", &built);
            // Flags for the host's code would reach the guests', too.
            cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
            of_target.iter().for_each(|(_, package)| {
                cargo.args(["-p", package]);
            });
            run_quietly(&mut cargo)?;
            for (module, package) in of_target {
                // A library's file has its crate's name, a program's its package's.
                let folder = built.join(target).join("release");
                let files = [
                    folder.join(format!("{package}.wasm")),
                    folder.join(format!("{}.wasm", package.replace('-', "_"))),
                ];
                let file = files.iter().find(|f| f.is_file()).unwrap_or(&files[0]);
                place(file, &self.output(env, module))?;
            }
        }
        Ok(())
    }

    /// Whether its own configuration of cargo says so: what whoever builds it by hand gets, too.
    fn is_configured(&self, says: &str) -> bool {
        let configuration = fs::read_to_string(self.folder.join(".cargo/config.toml")).unwrap_or_default();
        configuration.lines().any(|line| line.trim() == says)
    }

    /// C, or Rust with C in it.
    fn needs_c(&self) -> bool {
        self.language == Language::C || self.is_configured("CC_wasm32_wasip1 = \"clang\"")
    }

    fn javascript(&self, env: &Env) -> Result<(), String> {
        let compiler = env.toolchains().join("js/node_modules/@bytecodealliance/componentize-js/src/cli.js");
        let (part, output) = self.part(env);
        let (wit, world) = self.world(env);
        let mut node = command(env, "node");
        // Modules that a script imports are found below the current folder, and nowhere else.
        node.current_dir(&env.root).arg(compiler).args(script(&self.folder));
        run_quietly(node.arg("--wit").arg(wit).args(["-n", &world, "-o"]).arg(&part))?;
        place(&part, &output)
    }

    /// Compiled from a folder beside which the packages lie, as after `npm install`: the compiler finds its standard
    /// library over WASI nowhere else.
    fn assembly_script(&self, env: &Env) -> Result<(), String> {
        let (part, output) = self.part(env);
        let packages = env.toolchains().join("as/node_modules");
        let work = env.guests().join(".work").join(name(&output));
        let link = |target: &Path, name: &str| match fs::remove_file(work.join(name)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => std::os::unix::fs::symlink(target, work.join(name)),
        };
        fs::create_dir_all(&work)
            .and_then(|()| link(&packages, "node_modules"))
            .and_then(|()| link(&self.folder.join("assembly"), "assembly"))
            .map_err(|e| format!("{}: {e}", work.display()))?;
        let mut node = command(env, "node");
        node.arg("node_modules/assemblyscript/bin/asc.js").args(["assembly/index.ts", "-O", "--config"]);
        node.arg("node_modules/@assemblyscript/wasi-shim/asconfig.json").arg("-o").arg(&part);
        run_quietly(node.current_dir(&work))?;
        place(&part, &output)
    }

    fn assembly_script_2021(&self, env: &Env) -> Result<(), String> {
        let (part, output) = self.part(env);
        let packages = env.toolchains().join("as-2021/node_modules");
        let mut node = command(env, "node");
        node.arg(packages.join("assemblyscript/bin/asc")).args([
            "index.ts",
            "-O",
            "--use",
            "abort=wasi_abort",
        ]);
        node.arg("--path").arg(&packages).arg("-b").arg(&part);
        run_quietly(node.current_dir(&self.folder))?;
        place(&part, &output)
    }

    fn python(&self, env: &Env) -> Result<(), String> {
        let compiler = env.toolchains().join("venv/bin/componentize-py");
        let (part, output) = self.part(env);
        let (wit, world) = self.world(env);
        let mut python = command(env, &compiler.to_string_lossy());
        python.arg("-d").arg(wit).args(["-w", &world, "componentize", "app", "-p", "."]);
        if let Some(sdk) = &self.sdk {
            python.arg("-p").arg(sdk);
        }
        python.arg("-o").arg(&part);
        run_quietly(python.current_dir(&self.folder))?;
        place(&part, &output)
    }

    fn go(&self, env: &Env) -> Result<(), String> {
        let (part, output) = self.part(env);
        let mut go = command(env, &go(env));
        go.args(["build", "-trimpath", "-ldflags=-s -w", "-o"]).arg(&part).arg(".").current_dir(&self.folder);
        // The pinned Go, and nothing from the network: these guests use the standard library and the SDK only.
        go.envs([("GOOS", "wasip1"), ("GOARCH", "wasm"), ("GOTOOLCHAIN", "local"), ("GOPROXY", "off")]);
        go.env("GOCACHE", env.toolchains().join("go-cache")).env("GOPATH", env.toolchains().join("go"));
        run_quietly(&mut go)?;
        place(&part, &output)
    }

    fn c(&self, env: &Env) -> Result<(), String> {
        let (part, output) = self.part(env);
        let mut clang = command(env, "clang");
        clang.args(["--target=wasm32-wasi", "-Os", "-s", "-Wall", "-Werror", "-o"]).arg(&part);
        run_quietly(clang.arg(self.folder.join("main.c")))?;
        place(&part, &output)
    }

    /// The file a compiler writes, and the one it is renamed to when it is whole.
    fn part(&self, env: &Env) -> (PathBuf, PathBuf) {
        let module = format!("{}{}", self.prefix, name(&self.folder));
        (env.guests().join(format!(".{module}.part.wasm")), self.output(env, &module))
    }

    /// The WIT folder and the world: the guest's own, or that of every HTTP component.
    fn world(&self, env: &Env) -> (PathBuf, String) {
        let own = self.folder.join("wit");
        if own.join("world.wit").is_file() {
            (own, "app".into())
        } else {
            (env.root.join("wit/http"), "http-app".into())
        }
    }

    /// An example's manifest names its modules `build/<app>.wasm`, where `dhow build` would put them.
    fn give_to_example(&self, env: &Env, module: &str, output: &Path) -> Result<(), String> {
        if !self.folder.starts_with(env.root.join("examples")) {
            return Ok(());
        }
        let app = module.strip_prefix(&self.prefix).unwrap_or(module);
        let to = self.folder.with_file_name("build").join(format!("{app}.wasm"));
        let bytes = fs::read(output).map_err(|e| format!("{}: {e}", output.display()))?;
        if fs::read(&to).is_ok_and(|old| old == bytes) {
            return Ok(());
        }
        fs::create_dir_all(self.folder.with_file_name("build"))
            .and_then(|()| fs::write(&to, bytes))
            .map_err(|e| format!("{}: {e}", to.display()))
    }
}

/// Go from PATH, else the one in the Python environment.
fn go(env: &Env) -> String {
    let own = env.toolchains().join("venv/bin/go");
    let found = if own.is_file() { Some(own) } else { env.which("go") };
    found.map_or_else(|| "go".to_owned(), |path| path.to_string_lossy().into_owned())
}

/// Copies in two steps, so that a reader never sees half a module.
fn place(from: &Path, to: &Path) -> Result<(), String> {
    let part = to.with_extension("part");
    fs::copy(from, &part)
        .and_then(|_| fs::rename(&part, to))
        .map_err(|e| format!("{} to {}: {e}", from.display(), to.display()))?;
    // Cargo still needs its own file; the other compilers' results have no other reader.
    if name(from).starts_with('.') {
        let _ = fs::remove_file(from);
    }
    Ok(())
}
