//! SHELL. The configuration: a TOML file, overridden by the environment, overridden by flags.
//!
//! ```toml
//! runtime_dir = "/run/ipc"          # where the sockets are
//! state_dir = "/var/lib/ipc"        # what outlives the daemon
//! tcp = "127.0.0.1:7100"            # the bus protocol over TCP, on loopback; default: not at all
//! udp = "127.0.0.1:7100"            # the same over UDP
//! expose = ["tcp:127.0.0.1:7000=demo.title/title"]
//! poll_before_park = true           # look for work for up to 50 us before sleeping; costs CPU, saves wake-ups
//!
//! [remote]                          # network peers of the bus protocol that have proved nothing
//! allow = ["call demo.title/title", "publish sensor.>", "subscribe sensor.>"]   # default: nothing
//!
//! [log]
//! format = "auto"                   # auto, text, json
//! level = "info"                    # off, error, warn, info, debug, trace
//!
//! [limits]                          # each as `ipc-cli status` shows it
//! connections_max = 16384
//! ```

mod loopback;
mod policy;

use core::fmt;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use ipc_core::limits::Limits;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use self::policy::{Remote, WrittenRemote};
use crate::args::{Args, LogFormat, LogLevel};
use crate::bridge::spec::Spec;
use crate::broker::Policy;
use crate::failure::{Exit, Failure};

/// Longest configuration file, in bytes.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// What the daemon runs with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Config {
    /// Directory for the sockets; `None` leaves it to the usual places.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) runtime_dir: Option<PathBuf>,
    /// Directory for what outlives the daemon; `None` leaves it to the usual places.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Where the bus protocol is spoken over TCP, an address on loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tcp: Option<SocketAddr>,
    /// Where it is spoken over UDP, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) udp: Option<SocketAddr>,
    /// Plain TCP ports, as `--expose` takes them.
    pub(crate) expose: Vec<Spec>,
    /// Whether the event loop looks for work for a moment before it sleeps.
    pub(crate) poll_before_park: bool,
    /// What the network may do.
    pub(crate) remote: Remote,
    /// Log lines.
    pub(crate) log: Log,
    /// Every limit of the daemon.
    #[serde(serialize_with = "limits_by_name")]
    pub(crate) limits: Limits,
}

/// How and which log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// How.
    pub(crate) format: LogFormat,
    /// Which.
    pub(crate) level: LogLevel,
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    runtime_dir: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    tcp: Option<Spanned<SocketAddr>>,
    udp: Option<Spanned<SocketAddr>>,
    expose: Vec<Spec>,
    poll_before_park: bool,
    remote: WrittenRemote,
    log: Log,
    #[serde(deserialize_with = "limits_from_table")]
    limits: Limits,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            runtime_dir: None,
            state_dir: None,
            tcp: None,
            udp: None,
            expose: Vec::new(),
            poll_before_park: true,
            remote: WrittenRemote::default(),
            log: Log::default(),
            limits: Limits::default(),
        }
    }
}

/// Where the configuration comes from: enough to read it again.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    args: Args,
    variables: Variables,
}

impl Source {
    /// The command line and the environment of this process.
    pub(crate) fn new(args: Args) -> Self {
        Self { args, variables: Variables::read() }
    }

    /// The effective configuration.
    ///
    /// # Errors
    /// 78 with line and column when the file is wrong, 74 or 77 when it cannot be read.
    pub(crate) fn load(&self) -> Result<Config, Failure> {
        Config::load(&self.args, &self.variables)
    }
}

/// The variables that the configuration depends on. One that is set to nothing counts as not set.
#[derive(Clone, Debug, Default)]
struct Variables {
    /// `$IPC_CONFIG`.
    config: Option<PathBuf>,
    /// `$IPC_LOG`.
    log: Option<String>,
    /// `$IPC_RUNTIME_DIR`.
    runtime_dir: Option<PathBuf>,
    /// `$IPC_STATE_DIR`.
    state_dir: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME`, else `$HOME/.config`.
    config_home: Option<PathBuf>,
}

impl Variables {
    /// Reads the environment of this process.
    fn read() -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let path = |name: &str| variable(name).map(PathBuf::from);
        let absolute = |name: &str| path(name).filter(|path| path.is_absolute());
        Self {
            config: path("IPC_CONFIG"),
            log: variable("IPC_LOG").map(|value| value.to_string_lossy().into_owned()),
            runtime_dir: path("IPC_RUNTIME_DIR"),
            state_dir: path("IPC_STATE_DIR"),
            config_home: absolute("XDG_CONFIG_HOME")
                .or_else(|| absolute("HOME").map(|home| home.join(".config"))),
        }
    }
}

impl Config {
    fn load(args: &Args, variables: &Variables) -> Result<Self, Failure> {
        let place = find_file(args, variables)?;
        Self::layer(parse(&place)?, &place, args, variables)
    }

    /// File, environment, flags: each overrides those before it.
    fn layer(written: Written, place: &Place, args: &Args, variables: &Variables) -> Result<Self, Failure> {
        let mut log = written.log;
        if let Some(level) = &variables.log {
            log.level = LogLevel::from_str(level, true).map_err(|_| {
                Failure::new(Exit::Configuration, format!("$IPC_LOG is \"{}\"", level.escape_debug()))
                    .with_hint("set it to off, error, warn, info, debug or trace")
            })?;
        }
        log.level = args.log_level.unwrap_or(log.level);
        log.format = args.log_format.unwrap_or(log.format);
        let first = |flag: &Option<PathBuf>, variable: &Option<PathBuf>, file: Option<PathBuf>| {
            flag.clone().or_else(|| variable.clone()).or(file)
        };
        let mut expose = written.expose;
        if !args.expose.is_empty() {
            expose.clone_from(&args.expose);
        }
        Ok(Self {
            runtime_dir: first(&args.runtime_dir, &variables.runtime_dir, written.runtime_dir),
            state_dir: first(&args.state_dir, &variables.state_dir, written.state_dir),
            tcp: loopback::layer("tcp", args.tcp, written.tcp, place)?,
            udp: loopback::layer("udp", args.udp, written.udp, place)?,
            expose,
            poll_before_park: written.poll_before_park,
            remote: written.remote.read(place)?,
            log,
            limits: written.limits,
        })
    }

    /// Who may do what.
    pub(crate) fn policy(&self) -> Policy {
        Policy::new(self.remote.grants())
    }

    /// The keys that differ from those of a `running` daemon and cannot change while it runs.
    pub(crate) fn fixed_changes(&self, running: &Config) -> Vec<&'static str> {
        let keys = [
            ("runtime_dir", self.runtime_dir != running.runtime_dir),
            ("state_dir", self.state_dir != running.state_dir),
            ("poll_before_park", self.poll_before_park != running.poll_before_park),
            ("log.format", self.log.format != running.log.format),
        ];
        keys.into_iter().filter(|(_, is_changed)| *is_changed).map(|(key, _)| key).collect()
    }

    /// The configuration as a file that has the same effect.
    ///
    /// # Errors
    /// 74 when a path in it is not UTF-8, which TOML cannot hold.
    pub(crate) fn to_toml(&self) -> Result<String, Failure> {
        toml::to_string(self).map_err(|error| {
            Failure::new(Exit::Io, format!("cannot write the configuration as TOML: {error}"))
        })
    }
}

/// The file that holds, with its text: the one that was named, else the first that exists, else an empty one.
fn find_file(args: &Args, variables: &Variables) -> Result<Place, Failure> {
    if let Some(path) = args.config.as_ref().or(variables.config.as_ref()) {
        return match read_file(path)? {
            Some(text) => Ok(Place { path: path.clone(), text }),
            None => Err(Failure::new(
                Exit::Configuration,
                format!("the configuration file {} does not exist", path.display()),
            )
            .with_hint("name one that does with --config or $IPC_CONFIG")),
        };
    }
    let home = variables.config_home.as_ref().map(|home| home.join("ipc/daemon.toml"));
    for path in home.into_iter().chain([PathBuf::from("/etc/ipc/daemon.toml")]) {
        if let Some(text) = read_file(&path)? {
            return Ok(Place { path, text });
        }
    }
    Ok(Place::default())
}

/// The text of the file, `None` when there is none.
fn read_file(path: &Path) -> Result<Option<String>, Failure> {
    let failed = |error| Failure::io(format_args!("read the configuration {}", path.display()), error);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    file.take(FILE_MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_MAX_BYTES {
        let message = format!("the configuration {} is over {FILE_MAX_BYTES} bytes", path.display());
        return Err(Failure::new(Exit::Configuration, message));
    }
    Ok(Some(text))
}

/// The file that was read, for errors that name a place in it.
#[derive(Debug, Default)]
struct Place {
    path: PathBuf,
    text: String,
}

impl Place {
    /// Something is wrong at this offset.
    fn wrong_at(&self, offset: usize, message: impl fmt::Display) -> Failure {
        let (line, column) = position(&self.text, offset);
        Failure::new(Exit::Configuration, format!("{}:{line}:{column}: {message}", self.path.display()))
    }
}

fn parse(place: &Place) -> Result<Written, Failure> {
    toml::from_str(&place.text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        place
            .wrong_at(offset, error.message())
            .with_hint("`ipc-daemon --print-config` prints every key with its value")
    })
}

/// Line and column of an offset, counted from 1 in characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

fn limits_by_name<S: Serializer>(limits: &Limits, serializer: S) -> Result<S::Ok, S::Error> {
    let by_name = limits.by_name();
    let mut map = serializer.serialize_map(Some(by_name.len()))?;
    for (name, value) in by_name {
        map.serialize_entry(name, &value)?;
    }
    map.end()
}

fn limits_from_table<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Limits, D::Error> {
    struct Table;

    impl<'de> Visitor<'de> for Table {
        type Value = Limits;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table of limits")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Limits, A::Error> {
            let mut limits = Limits::default();
            while let Some(name) = map.next_key::<String>()? {
                map.next_value_seed(Setting { limits: &mut limits, name: &name })?;
            }
            Ok(limits)
        }
    }

    /// Sets one limit while its value is at hand, so that an error has the value's place.
    struct Setting<'a> {
        limits: &'a mut Limits,
        name: &'a str,
    }

    impl<'de> DeserializeSeed<'de> for Setting<'_> {
        type Value = ();

        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
            let value = u64::deserialize(deserializer)?;
            self.limits.set(self.name, value).map_err(D::Error::custom)
        }
    }

    deserializer.deserialize_map(Table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> String {
        let failure = configured(text).unwrap_err();
        assert_eq!(failure.exit, Exit::Configuration);
        failure.message
    }

    fn layered(text: &str, args: &Args, variables: &Variables) -> Result<Config, Failure> {
        let place = Place { path: "daemon.toml".into(), text: text.to_owned() };
        Config::layer(parse(&place)?, &place, args, variables)
    }

    fn configured(text: &str) -> Result<Config, Failure> {
        layered(text, &Args::default(), &Variables::default())
    }

    #[test]
    fn an_empty_file_is_the_default() {
        let config = configured("").unwrap();
        assert_eq!(config.limits, Limits::default());
        assert!(config.poll_before_park);
    }

    #[test]
    fn errors_have_their_line_and_column() {
        for (text, place) in [
            ("expose = []\nno_such_key = 1\n", "daemon.toml:2:1: "),
            ("[log]\nlevel = \"loud\"\n", "daemon.toml:2:9: "),
            ("[log]\nlevels = \"info\"\n", "daemon.toml:2:1: "),
            ("[limits]\n\nconnections_max = 0\n", "daemon.toml:3:19: "),
            ("[limits]\nno_such_limit = 1\n", "daemon.toml:2:17: "),
            ("[limits]\nconnections_max = -1\n", "daemon.toml:2:19: "),
            ("expose = [\"tcp:127.0.0.1:0=a/b\",\n  \"tcp:127.0.0.1:0=a\"]\n", "daemon.toml:1:10: "),
            ("poll_before_park = 1", "daemon.toml:1:20: "),
            ("tcp = \"localhost:1\"", "daemon.toml:1:7: "),
            ("\ntcp = \"0.0.0.0:7100\"", "daemon.toml:2:7: "),
            ("[remote]\nallow = [\"call a/b\",\n  \"own a\"]\n", "daemon.toml:3:3: "),
            ("[remote]\nallow = \"call a/b\"\n", "daemon.toml:2:9: "),
            ("[remote]\ndeny = []\n", "daemon.toml:2:1: "),
            ("x", "daemon.toml:1:2: "),
        ] {
            let message = failure(text);
            assert!(message.starts_with(place), "{text:?} gives {message}");
        }
        assert!(failure("[limits]\nno_such_limit = 1\n").contains("no_such_limit"));
    }

    #[test]
    fn each_layer_overrides_those_before_it() {
        let text = "runtime_dir = \"/file\"\nstate_dir = \"/file\"\nexpose = [\"tcp:[::1]:1=a/file\"]\n[log]\nlevel = \"warn\"\n";
        let alone = configured(text).unwrap();
        assert_eq!(alone.runtime_dir.as_deref(), Some(Path::new("/file")));
        assert_eq!(alone.log.level, LogLevel::Warn);

        let variables = Variables {
            log: Some("DEBUG".to_owned()),
            runtime_dir: Some("/variable".into()),
            state_dir: Some("/variable".into()),
            ..Variables::default()
        };
        let over = layered(text, &Args::default(), &variables).unwrap();
        assert_eq!(over.runtime_dir.as_deref(), Some(Path::new("/variable")));
        assert_eq!(
            (over.log.level, &*over.expose),
            (LogLevel::Debug, &[Spec::parse("tcp:[::1]:1=a/file").unwrap()][..])
        );

        let args = Args {
            runtime_dir: Some("/flag".into()),
            expose: vec![Spec::parse("tcp:[::1]:1=a/flag").unwrap()],
            log_level: Some(LogLevel::Error),
            log_format: Some(LogFormat::Json),
            ..Args::default()
        };
        let top = layered(text, &args, &variables).unwrap();
        assert_eq!(top.runtime_dir.as_deref(), Some(Path::new("/flag")));
        assert_eq!(top.state_dir.as_deref(), Some(Path::new("/variable")));
        assert_eq!((top.log.level, top.log.format), (LogLevel::Error, LogFormat::Json));
        assert_eq!(top.expose, args.expose);
    }

    #[test]
    fn a_wrong_variable_is_a_wrong_configuration() {
        let variables = Variables { log: Some("loud".to_owned()), ..Variables::default() };
        let failure = layered("", &Args::default(), &variables).unwrap_err();
        assert_eq!(failure.exit, Exit::Configuration);
        assert!(failure.message.contains("IPC_LOG"));
    }

    #[test]
    fn what_is_printed_reads_back_the_same() {
        let text = "runtime_dir = \"/r\"\ntcp = \"[::1]:7100\"\nexpose = [\"tcp:127.0.0.1:0=a/b\"]\npoll_before_park = false\n\
                    [remote]\nallow = [\"call a.b/c\", \"subscribe a.>\"]\n\
                    [log]\nformat = \"json\"\n[limits]\nconnections_max = 7\n";
        let config = configured(text).unwrap();
        let printed = config.to_toml().unwrap();
        let again = configured(&printed).unwrap();
        assert_eq!(again, config);
        assert_eq!(config.limits.connections_max, 7);
    }

    #[test]
    fn a_named_file_must_exist_and_a_usual_one_need_not() {
        let args = Args { config: Some("/nonexistent/daemon.toml".into()), ..Args::default() };
        let failure = Config::load(&args, &Variables::default()).unwrap_err();
        assert_eq!(failure.exit, Exit::Configuration);
        let nowhere = Variables { config_home: Some("/nonexistent".into()), ..Variables::default() };
        assert!(find_file(&Args::default(), &nowhere).is_ok());
    }
}
