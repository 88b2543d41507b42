//! `man`: the manual page of the program and of every command, generated from the definition of the command line.

use std::io;

use crate::args::definition;
use crate::error::Failure;
use crate::output::Output;

/// Prints the manual page; `ipc-cli man | man -l -` shows it.
pub(crate) fn run(output: &Output) -> Result<(), Failure> {
    let mut page = Vec::new();
    render(&definition(), &mut page)?;
    output.bytes(&page)
}

/// The page: the program first, then a section for each command.
fn render(program: &clap::Command, page: &mut Vec<u8>) -> io::Result<()> {
    let man = clap_mangen::Man::new(program.clone()).manual("User Commands");
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    // Only built commands know their whole usage, and only those not built have no options but their own.
    let mut built = program.clone();
    built.build();
    for (command, built) in program.get_subcommands().zip(built.get_subcommands()) {
        render_command(program.get_name(), command, built, page)?;
    }
    man.render_extra_section(page)
}

/// One command with its own options; those of every command stand once, with the program.
fn render_command(
    parent: &str,
    command: &clap::Command,
    built: &clap::Command,
    page: &mut Vec<u8>,
) -> io::Result<()> {
    let name = format!("{parent} {}", command.get_name());
    let mut section = Vec::new();
    if command.has_subcommands() {
        for (nested, built) in command.get_subcommands().zip(built.get_subcommands()) {
            render_command(&name, nested, built, page)?;
        }
        return Ok(());
    }
    let usage = built.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").replace('-', "\\-");
    section.extend_from_slice(format!(".SH \"{}\"\n\\fB{usage}\\fR\n.PP\n", name.to_uppercase()).as_bytes());
    if let Some(about) = command.get_about() {
        section.extend_from_slice(format!("{about}.\n").as_bytes());
    }
    if command.get_arguments().next().is_some() {
        clap_mangen::Man::new(command.clone().disable_help_flag(true))
            .render_options_section(&mut section)?;
    }
    // The options belong under the command's own heading.
    let section = String::from_utf8_lossy(&section).replace(".SH OPTIONS\n", "");
    page.extend_from_slice(section.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_every_option_is_in_the_page() {
        let mut page = Vec::new();
        render(&definition(), &mut page).expect("renders");
        let page = String::from_utf8(page).expect("text").replace('\\', "");
        for command in definition().get_subcommands() {
            let heading = format!(".SH \"IPC-CLI {}", command.get_name().to_uppercase());
            assert!(page.contains(&heading), "{heading}");
            for option in command.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(page.contains(&format!("--{option}")), "{option}");
            }
        }
        assert_eq!(
            page.matches("--runtime-dir").count(),
            2,
            "global options stand in the synopsis and once more"
        );
    }
}
