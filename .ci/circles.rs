//! Finds circles of imports: `circles DIR...` reads the modules below each DIR and prints every import on a circle.
//!
//! Modules side by side import in one direction only: one of two may import from the other, directly or through further modules. A folder
//! stands for all that is in it. A module and the modules inside it are one room, so imports between these do not
//! count. A name that a module only passes on, by `pub use`, counts where it is defined. Tests may import anything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

/// The names that lead from the root of the crate to a module or an item.
type Names = Vec<String>;

struct Module {
    file: PathBuf,
    /// The paths that the module names, each with its line and, for a `pub use`, the name that it passes on.
    paths: Vec<(usize, Names, Option<String>)>,
}

type Modules = BTreeMap<Names, Module>;

fn main() -> ExitCode {
    let mut circles = 0;
    for dir in env::args().skip(1) {
        let mut modules = Modules::new();
        read(Path::new(&dir), &[], &mut modules);
        assert!(!modules.is_empty(), "there are no modules in {dir}");
        circles += report(&modules);
    }
    ExitCode::from(u8::from(circles > 0))
}

/// Reads the modules of a folder.
fn read(dir: &Path, at: &[String], modules: &mut Modules) {
    for entry in fs::read_dir(dir).expect("the folder can be read") {
        let path = entry.expect("the entry can be read").path();
        let stem = path
            .file_stem()
            .map_or_else(String::new, |stem| stem.to_string_lossy().into());
        let inner = match &*stem {
            "lib" | "main" | "mod" => at.to_vec(),
            name => [at, &[name.to_string()]].concat(),
        };
        if path.is_dir() {
            read(&path, &inner, modules);
        } else if path.extension().is_some_and(|end| end == "rs")
            && !["tests", "testing"].contains(&&*stem)
        {
            let text = fs::read_to_string(&path).expect("the file can be read");
            let paths = paths(&text);
            modules.insert(inner, Module { file: path, paths });
        }
    }
}

/// Prints the imports that lie on a circle; returns their number.
fn report(modules: &Modules) -> usize {
    let mut imports: BTreeMap<(Names, Names), Vec<String>> = BTreeMap::new();
    for (at, module) in modules {
        for (line, path, _) in &module.paths {
            let Some(origin) = absolute(modules, at, path).map(|path| origin(modules, &path, 0))
            else {
                continue;
            };
            let shared = at
                .iter()
                .zip(&origin)
                .take_while(|(one, other)| one == other)
                .count();
            if shared < at.len() && shared < origin.len() {
                let sides = (at[..=shared].to_vec(), origin[..=shared].to_vec());
                let text = format!("{}:{line}: {}", module.file.display(), path.join("::"));
                imports.entry(sides).or_default().push(text);
            }
        }
    }
    let mut found = 0;
    for ((from, to), lines) in &imports {
        if reaches(&imports, to, from) {
            println!(
                "{} and {} need each other:\n    {}",
                from.join("::"),
                to.join("::"),
                lines.join("\n    ")
            );
            found += 1;
        }
    }
    found
}

fn reaches<T>(imports: &BTreeMap<(Names, Names), T>, from: &Names, to: &Names) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(at) = open.pop() {
        if seen.insert(at) {
            open.extend(
                imports
                    .keys()
                    .filter(|(side, _)| side == at)
                    .map(|(_, side)| side),
            );
        }
    }
    seen.contains(to)
}

/// A path from the root of the crate; `None` if it leads to another crate.
fn absolute(modules: &Modules, at: &[String], path: &[String]) -> Option<Names> {
    let inner = |from: &[String], rest: &[String]| Some([from, rest].concat());
    match &*path[0] {
        "crate" => inner(&[], &path[1..]),
        "self" => inner(at, &path[1..]),
        "super" => {
            let ups = path.iter().take_while(|name| *name == "super").count();
            inner(&at[..at.len() - ups], &path[ups..])
        }
        _ => inner(at, path).filter(|whole| modules.contains_key(&whole[..=at.len()])),
    }
}

/// The module that defines what a path names, through however many others it is passed on.
fn origin(modules: &Modules, path: &[String], depth: usize) -> Names {
    let mut module = Names::new();
    for (at, name) in path.iter().enumerate() {
        let inner = [&module[..], std::slice::from_ref(name)].concat();
        if modules.contains_key(&inner) {
            module = inner;
            continue;
        }
        let passed = modules.get(&module).and_then(|held| {
            let passed = held
                .paths
                .iter()
                .find(|(_, _, passed)| passed.as_ref() == Some(name));
            passed.and_then(|(_, path, _)| absolute(modules, &module, path))
        });
        return match passed {
            Some(further) if depth < 8 => origin(
                modules,
                &[&further[..], &path[at + 1..]].concat(),
                depth + 1,
            ),
            _ => module,
        };
    }
    module
}

/// The paths in the text of a module: all of its `use`, and whatever else begins with `crate` or `super`.
fn paths(text: &str) -> Vec<(usize, Names, Option<String>)> {
    let (text, _) = text
        .split_once("#[cfg(test)]\nmod tests")
        .unwrap_or((text, ""));
    let (mut found, mut import) = (Vec::new(), None);
    for (line, code) in (1..).zip(text.lines()) {
        let code = code.split("//").next().unwrap_or_default().trim();
        let begins =
            code.starts_with("use ") || (code.starts_with("pub") && code.contains(" use "));
        if begins && import.is_none() {
            let (_, tree) = code.split_once("use ").expect("it was just found");
            import = Some((line, code.starts_with("pub"), tree.to_string()));
        } else if let Some((_, _, tree)) = &mut import {
            tree.push_str(code);
        } else {
            for (start, _) in code
                .match_indices("crate::")
                .chain(code.match_indices("super::"))
            {
                let rest = &code[start..];
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
                let names = rest[..end.unwrap_or(rest.len())]
                    .split("::")
                    .filter(|name| !name.is_empty());
                found.push((line, names.map(String::from).collect(), None));
            }
        }
        if let Some((line, public, tree)) = import.take_if(|(_, _, tree)| tree.ends_with(';')) {
            expand("", tree.trim_end_matches(';'), &mut |leaf| {
                let (path, alias) = leaf.split_once(" as ").unwrap_or((leaf, ""));
                let mut path: Names = path
                    .split("::")
                    .map(|name| name.trim().to_string())
                    .collect();
                if path.len() > 1
                    && path
                        .last()
                        .is_some_and(|last| last == "self" || last == "*")
                {
                    path.pop();
                }
                let name = Some(alias.to_string())
                    .filter(|alias| !alias.is_empty())
                    .or(path.last().cloned());
                found.push((line, path, name.filter(|_| public)));
            });
        }
    }
    found
}

/// Hands out each path of a tree of imports.
fn expand(stem: &str, tree: &str, each: &mut impl FnMut(&str)) {
    let Some((head, rest)) = tree.split_once('{') else {
        return each(&format!("{stem}{}", tree.trim()));
    };
    let (mut depth, mut start) = (0, 0);
    let body = &rest[..rest.rfind('}').unwrap_or(rest.len())];
    for (at, c) in body.char_indices().chain([(body.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !body[start..at].trim().is_empty() {
                    expand(&format!("{stem}{}", head.trim()), &body[start..at], each);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}
