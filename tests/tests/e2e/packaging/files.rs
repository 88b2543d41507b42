//! What the package brings beside the programs says what the programs do.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use ipc_tests::programs::program;

fn packaged(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What `ipc-daemon` writes to its standard output and error, and whether it was content.
fn daemon(arguments: &[&str], config: &str) -> (String, String, bool) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("daemon.toml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(program("ipc-daemon"));
    let output = command.args(arguments).arg("--config").arg(&file).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr), output.status.success())
}

/// The configuration with every setting taken in, which is a line that begins with `#` and no space.
fn taken_in(annotated: &str) -> String {
    let lines = annotated.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => setting,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// The keys that the daemon knows in a table, the empty one for the top, by its own word.
fn keys(table: &str) -> BTreeSet<String> {
    let config =
        if table.is_empty() { "no-such-key = 1".to_owned() } else { format!("[{table}]\nno-such-key = 1") };
    let (_, said, is_good) = daemon(&["--check-config"], &config);
    let known = said.split_once("expected").unwrap_or_else(|| panic!("{table}: {said}")).1;
    assert!(!is_good);
    let known = known.lines().next().unwrap_or_default();
    known.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_annotated_configuration_has_every_key_with_its_default() {
    let annotated = packaged("daemon.toml");
    assert!(daemon(&["--check-config"], &annotated).2, "as it is");
    let taken_in = taken_in(&annotated);
    let (_, said, is_good) = daemon(&["--check-config"], &taken_in);
    assert!(is_good, "{said}");
    let mut tables: Vec<String> = vec![String::new()];
    for key in keys("") {
        match taken_in.contains(&format!("\n[{key}]\n")) {
            true => tables.push(key),
            false => assert!(taken_in.contains(&format!("\n{key} = ")), "{key} is missing"),
        }
    }
    assert!(tables.iter().any(|table| table == "limits"));
    for table in tables.iter().filter(|table| !table.is_empty() && *table != "limits") {
        let text = taken_in.split_once(&format!("\n[{table}]\n")).unwrap().1;
        let text = text.split("\n[").next().unwrap();
        for key in keys(table) {
            assert!(
                text.lines().any(|line| line.starts_with(&format!("{key} = "))),
                "{key} of [{table}] is missing"
            );
        }
    }
    // Those without a default are shown with an example, which is all that the two differ in.
    let settings = |config: &str| -> BTreeSet<String> {
        let (printed, said, is_good) = daemon(&["--print-config"], config);
        assert!(is_good, "{said}");
        printed.lines().map(str::to_owned).collect()
    };
    let shown = settings(&taken_in);
    for default in settings("") {
        assert!(shown.contains(&default), "the default is {default}");
    }
}

#[test]
fn the_manual_page_has_every_flag_and_no_other() {
    let page = packaged("man/ipc-daemon.8").replace("\\-", "-");
    let (help, _, _) = daemon(&["--help"], "");
    let flags = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '-'));
        words.filter(|word| word.starts_with("--") && word.len() > 2).map(str::to_owned).collect()
    };
    assert_eq!(flags(&page), flags(&help));
}

#[test]
fn the_units_are_sound() {
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        eprintln!("left out: this machine has no systemd-analyze");
        return;
    };
    assert!(version.status.success());
    for (bus, option) in [("system", "--system"), ("user", "--user")] {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", option, "--man=no", "--recursive-errors=no"]);
        for unit in ["ipc.socket", "ipc.service"] {
            let here = program("ipc-daemon");
            let text = packaged(&format!("systemd/{bus}/{unit}"));
            let text = text.replace("/usr/bin/ipc-daemon", here.to_str().unwrap());
            let path = directory.path().join(unit);
            std::fs::write(&path, text).unwrap();
            command.arg(path);
        }
        command.env("XDG_RUNTIME_DIR", directory.path());
        let said = command.output().unwrap();
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.success() && text.is_empty(), "{bus}: {text}");
    }
}
