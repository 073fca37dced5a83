//! What a module may use follows one order; this reads the sources and holds it.
//!
//! `algo → error · classify · deadline · clock · observe · rng · budget · seldom · slab → slots · admitted · keyed → layers →
//! pipeline → discovery → registries, balance → client → transport`: a room uses its own and what stands to the left of it.
//! `algo` is std only, a layer never uses another layer, `registries` and `balance` do not know each other. Tests at the end
//! of a file are free.
#![allow(clippy::unwrap_used)] // A test may; the lint knows test functions alone, not their helpers.

use std::fs;
use std::path::Path;

#[test]
fn every_module_uses_only_what_stands_below_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let dependencies = dependencies(&manifest);
    assert!(dependencies.contains(&"tokio".to_owned()));

    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    assert!(files.len() > 20);
    let mut edges = Vec::new();
    for file in &files {
        let path = file.strip_prefix(root).unwrap().to_str().unwrap();
        let source = fs::read_to_string(file).unwrap();
        edges.extend(violations(path, &source, &dependencies));
    }
    assert!(edges.is_empty(), "\n{}\n", edges.join("\n"));
}

#[test]
fn an_edge_against_the_order_is_named_with_its_file_line_and_rule() {
    let above =
        |room: &str, used: &str| format!("`{room}` stands below `{used}` and must not use it");
    let layers = "a layer never uses another layer".to_owned();
    let apart = "`registries` and `balance` do not know each other".to_owned();
    let std_only = "`algo` is std only".to_owned();
    let at_root = "paths name the module, so that the order can be read".to_owned();
    let cases = [
        // Allowed.
        (
            "src/lib.rs",
            "pub use client::Client;\nuse crate::transport::x;",
            vec![],
        ),
        (
            "src/algo/window.rs",
            "use std::time::Instant;\nuse super::rng::Rng;",
            vec![],
        ),
        (
            "src/observe/mod.rs",
            "use crate::algo::breaker::State;\nuse crate::error::Rejected;",
            vec![],
        ),
        (
            "src/layers/bulkhead/handle.rs",
            "use crate::layers::bulkhead::Permit;\nuse super::slots::Slots;",
            vec![],
        ),
        (
            "src/layers/mod.rs",
            "//! See [`Client`](crate::client::Client).\npub(crate) mod timeout;",
            vec![],
        ),
        (
            "src/transport/reqwest.rs",
            "use crate::{client::Client, discovery::Instance};",
            vec![],
        ),
        (
            "src/algo/pick.rs",
            "fn pick() {}\n#[cfg(test)]\nmod tests {\n    use crate::rng::ThreadRng;\n}",
            vec![],
        ),
        // Not allowed.
        (
            "src/algo/window.rs",
            "\nuse crate::clock::now;",
            vec![(2, above("algo", "clock"))],
        ),
        (
            "src/algo/window.rs",
            "fn f() {\n    super::super::clock::now()\n}",
            vec![(2, above("algo", "clock"))],
        ),
        (
            "src/algo/mod.rs",
            "use super::error::Rejected;",
            vec![(1, above("algo", "error"))],
        ),
        (
            "src/algo/pick.rs",
            "use tokio::time::Instant;",
            vec![(1, std_only.clone())],
        ),
        (
            "src/algo/pick.rs",
            "fn f() {\n  fastrand::u64(..);\n}",
            vec![(2, std_only)],
        ),
        (
            "src/error.rs",
            "use crate::layers::timeout;",
            vec![(1, above("error", "layers"))],
        ),
        (
            "src/layers/retry/layer.rs",
            "use crate::layers::{\n    retry,\n    timeout::TimeoutLayer,\n};",
            vec![(3, layers.clone())],
        ),
        (
            "src/layers/retry/layer.rs",
            "use super::super::timeout::TimeoutLayer;",
            vec![(1, layers.clone())],
        ),
        (
            "src/layers/timeout.rs",
            "use super::bulkhead;",
            vec![(1, layers)],
        ),
        (
            "src/discovery/mod.rs",
            "let x = crate::registries::memory::x();",
            vec![(1, above("discovery", "registries"))],
        ),
        (
            "src/registries/consul.rs",
            "use crate::balance::Balance;",
            vec![(1, apart.clone())],
        ),
        (
            "src/balance/mod.rs",
            "use crate::{error, registries::{file as f, http}};",
            vec![(1, apart.clone()), (1, apart)],
        ),
        (
            "src/client/mod.rs",
            "use crate::transport::reqwest;",
            vec![(1, above("client", "transport"))],
        ),
        (
            "src/client/mod.rs",
            "use crate::Deadline;",
            vec![(1, at_root)],
        ),
    ];
    let dependencies = ["fastrand".to_owned(), "tokio".to_owned()];
    for (path, source, expected) in cases {
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(line, rule)| format!("{path}:{line}: {rule}"))
            .collect();
        assert_eq!(
            violations(path, source, &dependencies),
            expected,
            "{source}"
        );
    }
}

/// The edges in `source` that go against the order, each as `file:line: rule`.
fn violations(path: &str, source: &str, dependencies: &[String]) -> Vec<String> {
    // The command uses the crate as anybody does.
    if EXEMPT.contains(&path) || path.starts_with("src/bin/") {
        return Vec::new();
    }
    let module = module(path);
    let tokens = tokens(source);
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let heads_a_path = tokens.get(at + 1).is_some_and(|next| next.text == "::")
            && (at == 0 || tokens[at - 1].text != "::");
        if !heads_a_path {
            continue;
        }
        if module[0] == "algo" && dependencies.iter().any(|name| name == token.text) {
            found.push((token.line, "`algo` is std only".to_owned()));
        }
        if !matches!(token.text, "crate" | "super") {
            continue;
        }
        let mut used = Vec::new();
        branches(&tokens, at, &[], &mut used);
        for (line, path) in used {
            if let Some(rule) = broken_rule(&module, &from_the_root(&module, &path)) {
                found.push((line, rule));
            }
        }
    }
    found
        .into_iter()
        .map(|(line, rule)| format!("{path}:{line}: {rule}"))
        .collect()
}

/// The rule that `module` breaks when it uses `path`, if any.
fn broken_rule(module: &[&str], path: &[&str]) -> Option<String> {
    let (room, used) = (module[0], *path.first()?);
    let Some(rank_of_used) = rank(used) else {
        return Some("paths name the module, so that the order can be read".to_owned());
    };
    let rank_of_room = rank(room).unwrap_or_else(|| panic!("`{room}` has no place in the order"));
    if rank_of_used > rank_of_room {
        return Some(format!(
            "`{room}` stands below `{used}` and must not use it"
        ));
    }
    if room == "layers"
        && used == "layers"
        && path.len() > 1
        && module.get(1).is_some_and(|layer| *layer != path[1])
    {
        return Some("a layer never uses another layer".to_owned());
    }
    if room != used
        && [room, used]
            .iter()
            .all(|room| ["registries", "balance"].contains(room))
    {
        return Some("`registries` and `balance` do not know each other".to_owned());
    }
    None
}

fn rank(room: &str) -> Option<usize> {
    ORDER.iter().position(|rooms| rooms.contains(&room))
}

/// `src/layers/retry/budget.rs` is `layers::retry::budget`.
fn module(path: &str) -> Vec<&str> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    path.trim_end_matches("/mod").split('/').collect()
}

/// `path`, written in `module`, without its leading `crate` or `super`s.
fn from_the_root<'a>(module: &[&'a str], path: &[&'a str]) -> Vec<&'a str> {
    let supers = path.iter().take_while(|name| **name == "super").count();
    let base = match supers {
        0 => &[],
        _ => &module[..module.len().saturating_sub(supers)],
    };
    let rest = &path[supers.max(1)..];
    [base, rest].concat()
}

/// The paths that begin at a token; there are several where braces branch. Returns the token after them.
fn branches<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    prefix: &[&'a str],
    out: &mut Vec<(usize, Vec<&'a str>)>,
) -> usize {
    let mut path = prefix.to_vec();
    let text = |at: usize| tokens.get(at).map_or("}", |token| token.text);
    if text(at) == "{" {
        at += 1;
        while text(at) != "}" {
            at = branches(tokens, at, prefix, out);
            while !matches!(text(at), "," | "}") {
                at += 1;
            }
            at += usize::from(text(at) == ",");
        }
        return at + 1;
    }
    let line = tokens.get(at).map_or(0, |token| token.line);
    path.push(text(at));
    if text(at + 1) == "::" {
        return branches(tokens, at + 2, &path, out);
    }
    out.push((line, path));
    at + 1
}

struct Token<'a> {
    text: &'a str,
    line: usize,
}

/// Names, `::` and single characters, without comments and the tests at the end.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut last = "";
    for (line, text) in (1..).zip(source.lines()) {
        if last == "#[cfg(test)]" && text.starts_with("mod ") && text.ends_with('{') {
            break;
        }
        last = text;
        let mut rest = text.split("//").next().unwrap_or_default().trim_start();
        while let Some(first) = rest.chars().next() {
            let name = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let length = match name {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                name => name,
            };
            let (text, after) = rest.split_at(length);
            tokens.push(Token { text, line });
            rest = after.trim_start();
        }
    }
    tokens
}

/// The names of the crates that the library uses, as they are written in code.
fn dependencies(manifest: &str) -> Vec<String> {
    manifest
        .lines()
        .skip_while(|line| *line != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.replace('-', "_"))
        .collect()
}

fn sources(folder: &Path, out: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
    out.sort();
}

const EXEMPT: [&str; 3] = ["src/lib.rs", "src/docs.rs", "src/fuzz.rs"];

const ORDER: [&[&str]; 10] = [
    // For the loom models alone.
    &["model"],
    &["algo"],
    &[
        "error", "classify", "deadline", "clock", "observe", "rng", "budget", "seldom", "slab",
    ],
    &["slots", "admitted", "keyed"],
    &["layers"],
    &["pipeline"],
    &["discovery"],
    &["registries", "balance"],
    &["client"],
    &["transport"],
];
