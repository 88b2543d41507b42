//! The files of the project, read once.

use std::collections::BTreeMap;
use std::path::Path;

use crate::modules::{self, Module};
use crate::scan::Scan;

/// Folders that hold nothing written by hand.
const SKIPPED: [&str; 5] = [".git", "target", "artifacts", "corpus", "node_modules"];

/// One file of the project that is text.
pub(crate) struct File {
    /// From the root of the project, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// Present for `.rs` files.
    pub(crate) scan: Option<Scan>,
}

/// A Rust file with what the rules need to know about it.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) path: &'a str,
    pub(crate) text: &'a str,
    pub(crate) scan: &'a Scan,
    /// Where the file stands in its crate; absent when no crate reaches it.
    pub(crate) module: Option<&'a Module>,
}

/// Every text file, by path.
pub(crate) struct Tree {
    files: BTreeMap<String, File>,
    modules: BTreeMap<String, Module>,
}

impl Tree {
    /// Reads the project that this package belongs to.
    pub(crate) fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace");
        let mut files = Vec::new();
        collect(root, "", &mut files);
        Self::new(files)
    }

    /// A tree that exists in a test only.
    pub(crate) fn sample(files: &[(&str, &str)]) -> Self {
        Self::new(files.iter().map(|(path, text)| (path.to_string(), text.to_string())).collect())
    }

    fn new(files: Vec<(String, String)>) -> Self {
        let files = files
            .into_iter()
            .map(|(path, text)| {
                let scan = path.ends_with(".rs").then(|| Scan::new(&text));
                (path.clone(), File { path, text, scan })
            })
            .collect();
        let mut tree = Self { files, modules: BTreeMap::new() };
        tree.modules = modules::reachable(&tree);
        tree
    }

    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.get(path)
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &File> {
        self.files.values()
    }

    /// The Rust files whose path starts with `prefix`.
    pub(crate) fn sources<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = Source<'a>> {
        self.files().filter(move |file| file.path.starts_with(prefix)).filter_map(|file| {
            let scan = file.scan.as_ref()?;
            let module = self.modules.get(&file.path);
            Some(Source { path: &file.path, text: &file.text, scan, module })
        })
    }
}

impl Source<'_> {
    /// A finding about the byte at `offset`.
    pub(crate) fn at(&self, offset: usize, message: &str) -> String {
        format!("{}:{}: {message}", self.path, self.scan.line(offset))
    }

    /// True for a file that is compiled for tests only.
    pub(crate) fn is_test(&self) -> bool {
        self.module.is_some_and(|module| module.test)
    }
}

fn collect(folder: &Path, prefix: &str, files: &mut Vec<(String, String)>) {
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|error| panic!("read {}: {error}", folder.display()));
    for entry in entries {
        let entry = entry.unwrap_or_else(|error| panic!("read {}: {error}", folder.display()));
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().unwrap_or_else(|error| panic!("look at {prefix}{name}: {error}"));
        if SKIPPED.contains(&name.as_str()) {
            continue;
        }
        if kind.is_dir() {
            collect(&entry.path(), &format!("{prefix}{name}/"), files);
        } else if kind.is_file() {
            let bytes =
                std::fs::read(entry.path()).unwrap_or_else(|error| panic!("read {prefix}{name}: {error}"));
            // What is not text, such as a fuzzing corpus, has no house rules.
            if let Ok(text) = String::from_utf8(bytes) {
                files.push((format!("{prefix}{name}"), text));
            }
        }
    }
}
