//! What the eye forgets: the layers, the top level, the files in `config/`, the commands in `README.md`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines a file in `src` may have before it surely holds a second idea; tests at its end do not count.
const FILE_LINES_MAX: usize = 700;

/// Names at the top level; dotted names are tool files, and `target` is cargo's.
const TOP_LEVEL: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "benches",
    "config",
    "docker",
    "src",
    "target",
    "tests",
];

/// Modules that may read the environment.
const ENVIRONMENT_READERS: &[&str] = &["app", "cli", "main"];

/// Programs that commands in README.md may begin with, besides `pillion` and files of this repository.
const PROGRAMS: &[&str] = &[
    "cargo",
    "cat",
    "cd",
    "cp",
    "curl",
    "docker",
    "docker-compose",
    "echo",
    "export",
    "git",
    "http_proxy",
    "kill",
    "mkdir",
    "nft",
    "python3",
    "rm",
    "sed",
    "sudo",
];

#[test]
fn modules_use_only_the_layers_above_their_own() {
    let layers = layers(&read(&root().join("src/lib.rs")));
    let mut problems = Vec::new();
    for file in rust_files(&root().join("src")) {
        let Some(module) = module_of(&file) else {
            continue;
        };
        let own = *layers.get(&module).unwrap_or_else(|| {
            panic!("{}: the module {module} stands in no paragraph of src/lib.rs: add it to its layer there", shown(&file))
        });
        for (line, used) in crate_paths(&read(&file)) {
            match layers.get(&used) {
                Some(&layer) if layer < own || used == module => {}
                Some(&layer) => problems.push(format!(
                    "{}:{line}: `{module}` uses `crate::{used}`, which stands {} it in src/lib.rs. Pass what is needed in as an argument, \
                     move the shared part to a layer above both (model, base), or let `app` introduce them.",
                    shown(&file),
                    if layer == own { "beside" } else { "below" },
                )),
                None => problems.push(format!("{}:{line}: `crate::{used}` is no module of src/lib.rs", shown(&file))),
            }
        }
    }
    assert!(
        problems.is_empty(),
        "{} imports against the layers:\n{}",
        problems.len(),
        problems.join("\n")
    );
}

#[test]
fn only_the_application_and_the_command_line_read_the_environment() {
    let mut problems = Vec::new();
    for file in rust_files(&root().join("src")) {
        if module_of(&file).is_some_and(|module| ENVIRONMENT_READERS.contains(&module.as_str())) {
            continue;
        }
        for (number, line) in product_lines(&file, &read(&file)) {
            if ["env::var(", "env::vars(", "env::var_os(", "env::args("]
                .iter()
                .any(|call| line.contains(call))
            {
                problems.push(format!(
                    "{}:{number}: reads the environment; take the value as an argument from `app`",
                    shown(&file)
                ));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn no_file_holds_more_than_one_idea() {
    let long: Vec<_> = rust_files(&root().join("src"))
        .into_iter()
        .filter_map(|file| {
            let lines = product_lines(&file, &read(&file)).len();
            (lines > FILE_LINES_MAX)
                .then(|| format!("{}: {lines} lines; look for the second idea", shown(&file)))
        })
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn the_top_level_holds_only_what_a_newcomer_looks_for() {
    let mut strangers: Vec<_> = entries(&root())
        .iter()
        .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
        .filter(|name| !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str()))
        .collect();
    strangers.sort();
    assert!(
        strangers.is_empty(),
        "at the top level: {strangers:?}; put them into a folder, or name them in tests/tidy.rs"
    );
}

#[test]
fn every_file_in_config_passes_the_check() {
    let mut problems = Vec::new();
    let config = root().join("config");
    // Those in folders are what documents name.
    let documents = files_ending(&config, &["yaml", "yml"])
        .into_iter()
        .filter(|file| file.parent() == Some(&config));
    for file in documents {
        let output = pillion(&["check".into(), file.display().to_string()]);
        if !output.status.success() {
            problems.push(format!(
                "{}\n{}",
                shown(&file),
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat())
            ));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_command_in_the_readme_can_be_typed() {
    let readme = read(&root().join("README.md"));
    let commands = commands(&readme);
    let problems: Vec<_> = commands
        .iter()
        .filter_map(|(line, command)| {
            Some(format!(
                "README.md:{line}: `{command}`: {}",
                problem_of(command)?
            ))
        })
        .collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(
        !commands.is_empty(),
        "README.md shows no command in a ```sh or ```console block"
    );
}

/// Layer number of each module: the paragraphs of lib.rs from the top.
fn layers(lib: &str) -> BTreeMap<String, usize> {
    let mut layers = BTreeMap::new();
    for (number, paragraph) in lib.split("\n\n").enumerate() {
        let modules = paragraph.lines().filter_map(|line| {
            line.trim_start_matches("pub ")
                .strip_prefix("mod ")?
                .strip_suffix(';')
                .map(str::to_owned)
        });
        layers.extend(modules.map(|module| (module, number)));
    }
    layers
}

/// The first-level module a file belongs to; None for lib.rs and main.rs.
fn module_of(file: &Path) -> Option<String> {
    let inside = file
        .strip_prefix(root().join("src"))
        .expect("a file of src");
    let first = inside
        .components()
        .next()?
        .as_os_str()
        .to_str()?
        .trim_end_matches(".rs")
        .to_owned();
    (first != "lib" && first != "main").then_some(first)
}

/// The modules named right after `crate::`, with the line, comments left out; `crate::{a::x, b}` names two.
fn crate_paths(text: &str) -> Vec<(usize, String)> {
    let code: String = text
        .lines()
        .map(|line| format!("{}\n", without_comment(line)))
        .collect();
    let mut found = Vec::new();
    for (place, _) in code.match_indices("crate::") {
        if code[..place].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let line = code[..place].matches('\n').count() + 1;
        found.extend(
            first_names(&code[place + "crate::".len()..])
                .into_iter()
                .map(|name| (line, name)),
        );
    }
    found
}

/// `a::b` gives a; `{a::{b, c}, d}` gives a and d.
fn first_names(path: &str) -> Vec<String> {
    let identifier = |text: &str| {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    if !path.starts_with('{') {
        return vec![identifier(path)];
    }
    let mut names = Vec::new();
    let mut depth = 0;
    for (place, c) in path.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && (c == '{' || c == ',') {
            names.push(identifier(path[place + 1..].trim_start()));
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn without_comment(line: &str) -> &str {
    match line.find("//") {
        // Not in `"http://…"`: a quote before it that is still open.
        Some(place) if line[..place].matches('"').count().is_multiple_of(2) => &line[..place],
        _ => line,
    }
}

/// The lines that ship, numbered and without comments: no item under `#[cfg(test)]`, and none of a test's own file.
fn product_lines<'t>(file: &Path, text: &'t str) -> Vec<(usize, &'t str)> {
    let mut lines = Vec::new();
    let mut in_test = None;
    let all = if is_for_tests(file) { "" } else { text };
    for (index, line) in all.lines().enumerate() {
        let depth = line.len() - line.trim_start().len();
        if in_test.is_none() && line.trim() == "#[cfg(test)]" {
            in_test = Some(depth);
        } else if in_test == Some(depth) {
            // The item's first line may also be its last; else it ends where a brace closes at its own depth.
            if line.ends_with(';') || line.trim() == "}" {
                in_test = None;
            }
        } else if in_test.is_none() {
            lines.push((index + 1, without_comment(line)));
        }
    }
    lines
}

/// Whether the file, or a folder it is in, is declared under `#[cfg(test)]`.
fn is_for_tests(file: &Path) -> bool {
    let Some(folder) = file
        .parent()
        .filter(|folder| folder.starts_with(root().join("src")))
    else {
        return false;
    };
    let stem = file
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    let declared = [
        folder.join("mod.rs"),
        folder.join("lib.rs"),
        folder.with_extension("rs"),
    ]
    .iter()
    .filter_map(|parent| fs::read_to_string(parent).ok())
    .any(|parent| parent.contains(&format!("#[cfg(test)]\nmod {stem};")));
    declared || is_for_tests(folder)
}

/// Commands in the ```sh and ```console blocks: in the latter, what stands after `$ `. A trailing `\` joins lines.
fn commands(markdown: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut block: Option<&str> = None;
    let mut joining = false;
    for (index, line) in markdown.lines().enumerate() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            block = if block.is_some() {
                None
            } else {
                Some(language.trim())
            };
            continue;
        }
        let typed = match block {
            Some("sh") => Some(line),
            Some("console") if joining => Some(line),
            Some("console") => line.strip_prefix("$ "),
            _ => None,
        };
        let Some(typed) = typed.map(|typed| typed.split(" #").next().unwrap_or("").trim()) else {
            continue;
        };
        if typed.is_empty() || typed.starts_with('#') {
            continue;
        }
        let text = typed.trim_end_matches('\\').trim_end();
        match found.last_mut() {
            Some((_, command)) if joining => *command = format!("{command} {text}"),
            _ => found.push((index + 1, text.to_owned())),
        }
        joining = typed.ends_with('\\');
    }
    found
}

/// What is wrong with a command of the README; None when it names things that exist.
fn problem_of(command: &str) -> Option<String> {
    let words = words(command);
    let words: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .skip_while(|word| is_assignment(word))
        .collect();
    let (program, arguments) = words.split_first()?;
    if let Some(missing) = words
        .iter()
        .find(|word| names_our_file(word) && !root().join(word).exists())
    {
        return Some(format!("{missing} does not exist"));
    }
    match *program {
        "pillion" | "target/release/pillion" | "./target/release/pillion" => unparsed(arguments),
        "cargo" if arguments.first() == Some(&"run") => {
            let ours = arguments.iter().position(|word| *word == "--")?;
            unparsed(&arguments[ours + 1..])
        }
        "sudo" => problem_of(&arguments.join(" ")),
        _ if PROGRAMS.contains(program) || names_our_file(program) => None,
        _ => Some(format!(
            "{program} is neither a file here nor a program that tests/tidy.rs knows"
        )),
    }
}

/// clap prints the help of a command line that it can read so far, and fails on one that it cannot.
fn unparsed(arguments: &[&str]) -> Option<String> {
    let end = arguments
        .iter()
        .position(|word| ["|", "&", ">", "&&", ";"].contains(word))
        .unwrap_or(arguments.len());
    let mut asked: Vec<String> = arguments[..end]
        .iter()
        .map(|word| word.to_string())
        .collect();
    asked.push("--help".into());
    let output = pillion(&asked);
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

/// Shell words, as far as a README needs them: quotes group.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, c) if c.is_whitespace() => words.push(String::new()),
            (_, c) => words.last_mut().expect("never empty").push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_')
    })
}

fn names_our_file(word: &str) -> bool {
    ["config/", "docker/", "tests/", "benches/", "src/"]
        .iter()
        .any(|folder| word.starts_with(folder))
        && !word.contains('*')
}

fn pillion(arguments: &[String]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_pillion"))
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("pillion runs")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    files_ending(folder, &["rs"])
}

fn files_ending(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in entries(folder) {
        if path.is_dir() {
            files.extend(files_ending(&path, endings));
        } else if path
            .extension()
            .is_some_and(|ending| endings.iter().any(|wanted| ending == *wanted))
        {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let listing =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    listing
        .map(|entry| entry.expect("a readable folder").path())
        .collect()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn shown(file: &Path) -> String {
    file.strip_prefix(root())
        .unwrap_or(file)
        .display()
        .to_string()
}
