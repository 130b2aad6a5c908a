//! The arguments, as `runsc` and `runc` have them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::error::{Error, Result};
use crate::fail;

/// Run unmodified Linux programs in a sandbox with a kernel of its own.
///
/// `quicksand do CMD…` runs a command on this machine's own files, which it can read and not change. `quicksand run`,
/// `create`, `start` and the others take OCI bundles, as `runc` does; container engines use them.
#[derive(Debug, Parser)]
#[command(name = "quicksand", disable_version_flag = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Flags that every command takes.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// Where the state of containers is kept [default: /run/quicksand, or $XDG_RUNTIME_DIR/quicksand]
    #[arg(long, global = true, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Append messages to this file
    #[arg(long, global = true, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// How messages are written to the log; in `json` each is {"level","msg","time"}
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Log more
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub debug: bool,
    /// Ask systemd for cgroups (not supported: the cgroup file system is used)
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub systemd_cgroup: bool,
    /// Leave cgroups alone
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub ignore_cgroups: bool,
    /// What runs the sandbox's code
    #[arg(long, global = true, value_enum, default_value = "auto")]
    pub platform: PlatformName,
    /// `none`: a loopback of its own. `host`: the caller's. `sandbox`: what the container's spec says
    #[arg(long, global = true, value_enum, default_value = "sandbox")]
    pub network: Network,
    /// Where changes to the root go: `memory` keeps them in the sandbox, `none` lets them through to the host
    #[arg(long, global = true, value_enum, default_value = "memory")]
    pub overlay: Overlay,
    /// Let the sandbox open files of its root by itself, rather than through a file server process
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
    pub directfs: bool,
    /// Log every system call
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub strace: bool,
    /// Where `--strace` lines go, instead of standard error
    #[arg(long, global = true, value_name = "FILE")]
    pub strace_log: Option<PathBuf>,
    /// Let a container's annotations `dev.quicksand.flag.NAME` set the flags platform, network, overlay, directfs and
    /// strace for it
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub allow_flag_override: bool,
    /// Accepted for compatibility with other runtimes
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub rootless: Option<String>,
    /// Accepted for compatibility with other runtimes
    #[arg(long, global = true, hide = true, value_name = "PATH")]
    pub criu: Option<PathBuf>,
    /// Write the milestones of a start to this descriptor, as JSON lines
    #[arg(long, global = true, hide = true, value_name = "N")]
    pub timeline_fd: Option<i32>,
    /// Print the version
    #[arg(long, short = 'v')]
    pub version: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlatformName {
    /// KVM where it can be used, else systrap
    Auto,
    /// A virtual machine
    Kvm,
    /// Host processes whose system calls are trapped
    Systrap,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Network {
    None,
    Host,
    Sandbox,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Overlay {
    Memory,
    None,
}

/// Commands, in the order in which a container meets them.
#[derive(Debug, Subcommand)]
pub enum Command {
    Do(DoArgs),
    Run(RunArgs),
    Create(CreateArgs),
    Start(StartArgs),
    /// Print a container's state as JSON: id, status (creating, created, running, paused, stopped), pid, bundle, annotations
    State(IdArgs),
    Exec(Box<ExecArgs>),
    Kill(KillArgs),
    Ps(PsArgs),
    /// Wait until a container has ended; exit with its code
    Wait(IdArgs),
    /// Stop every process of a container where it is
    Pause(IdArgs),
    /// Let the processes of a paused container go on
    Resume(IdArgs),
    Checkpoint(CheckpointArgs),
    Restore(RestoreArgs),
    Stats(StatsArgs),
    Invoke(InvokeArgs),
    #[command(subcommand)]
    Image(ImageCommand),
    Delete(DeleteArgs),
    List(ListArgs),
    Spec(SpecArgs),
    /// Print what this runtime can do, as JSON in the form of the OCI features document
    Features,
    Doctor(DoctorArgs),
}

/// Run a command on this machine's own files: readable, never changed
///
/// The command sees this machine's files as they are, read-only below and with memory above: what it writes is gone when
/// it ends. It gets our environment, working directory and standard streams, and a loopback network of its own. Its exit
/// code is ours (128 + signal where one killed it).
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  quicksand do python3 -c 'print(1)'\n  quicksand do --strace --strace-log calls.txt ls /\n  quicksand --network=host do curl http://localhost:8000/"
)]
pub struct DoArgs {
    /// Working directory [default: the current one]
    #[arg(long)]
    pub cwd: Option<PathBuf>,
    /// Add a variable to the environment, which is otherwise ours
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// The directory that becomes `/`
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub rootfs: PathBuf,
    /// Run as this user
    #[arg(long, value_name = "UID[:GID]")]
    pub user: Option<String>,
    #[command(flatten)]
    pub entry: EntryArgs,
    /// Go on from this image, which `do` with the same --rootfs took, instead of starting a command
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    pub image: Option<PathBuf>,
    #[command(flatten)]
    pub event: EventArgs,
    /// The command and its arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required_unless_present = "image",
        value_name = "CMD"
    )]
    pub command: Vec<String>,
}

/// When an image is taken by itself, and how.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Checkpoint")]
pub struct EntryArgs {
    /// Take an image as soon as the program is ready, which is when: it listens on a stream socket for the first time
    /// (`listen`); one of its threads waits for a connection for the first time (`accept`); it has written a line that
    /// matches to standard output or error (`line:REGEX`); it asks for its first event as a Lambda function, by the Runtime
    /// API that the sandbox serves then (`lambda-next`); it sends a signal, which is not delivered, or somebody else does
    /// (`signal`: number 64, `signal:NAME`: another)
    #[arg(long, value_name = "WHEN", requires = "entry_image")]
    pub checkpoint_at: Option<At>,
    /// The directory that becomes the image; it must not be there, or be empty
    #[arg(id = "entry_image", long = "image-path", value_name = "DIR", requires = "checkpoint_at")]
    pub image_path: Option<PathBuf>,
    /// Let the container go on when the image is there; without, it ends, and so do we, with 0
    #[arg(long, requires = "checkpoint_at")]
    pub leave_running: bool,
    /// How pages are stored: `none` (mapped as they lie), or `zstd` (smaller, and copied at a restore)
    #[arg(long, value_enum, default_value = "none")]
    pub compression: Compression,
    /// What becomes of TCP connections: `reset` or `refuse`, as for `checkpoint`
    #[arg(long, value_enum, default_value = "reset")]
    pub tcp: Tcp,
    /// Wait no longer than this for the moment [default: as long as the program runs]
    #[arg(long, value_name = "SECONDS", value_parser = seconds, requires = "checkpoint_at")]
    pub checkpoint_timeout: Option<Duration>,
}

/// The moment at which an image is taken.
#[derive(Clone, Debug)]
pub enum At {
    Listen,
    Accept,
    Line(regex::bytes::Regex),
    LambdaNext,
    Signal(i32),
}

impl std::str::FromStr for At {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<At, String> {
        Ok(match text {
            "listen" => At::Listen,
            "accept" => At::Accept,
            "lambda-next" => At::LambdaNext,
            "signal" => At::Signal(64),
            _ => {
                if let Some(pattern) = text.strip_prefix("line:") {
                    At::Line(regex::bytes::Regex::new(pattern).map_err(|e| e.to_string())?)
                } else if let Some(name) = text.strip_prefix("signal:") {
                    let signal = crate::commands::signal_by_name(name).map_err(|e| e.to_string())?;
                    if [0, libc::SIGKILL, libc::SIGSTOP].contains(&signal) {
                        return Err(format!("{name} cannot stand for anything else"));
                    }
                    At::Signal(signal)
                } else {
                    return Err(
                        "it is one of listen, accept, line:REGEX, lambda-next, signal, signal:NAME".into()
                    );
                }
            }
        })
    }
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            At::Listen => f.write_str("listen"),
            At::Accept => f.write_str("accept"),
            At::Line(pattern) => write!(f, "line:{pattern}"),
            At::LambdaNext => f.write_str("lambda-next"),
            At::Signal(signal) => write!(f, "signal:{signal}"),
        }
    }
}

/// A span of time in seconds, with a fraction perhaps.
fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    // A year is for ever, and can be added to any time.
    let longest = Duration::from_secs(365 * 24 * 3600);
    seconds.filter(|time| *time <= longest).ok_or_else(|| "a number of seconds is expected".into())
}

/// An event for a Lambda function, and how long it may take.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Lambda functions")]
pub struct EventArgs {
    /// Hand this event to the function, print its response, and end: the image was taken at `lambda-next`. `-` is standard
    /// input. What the function prints goes to standard error
    #[arg(long, value_name = "FILE")]
    pub invoke: Option<PathBuf>,
    /// How long the function may take, as it is told
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "900")]
    pub invoke_timeout: Duration,
}

/// Hand an event to a Lambda function and print its response
///
/// The container has the Lambda Runtime API: it was started with `--checkpoint-at=lambda-next`, or restored from an image of
/// one. Where the function reports an error, that is printed instead, and the exit code is 1.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  echo '{\"name\": \"x\"}' | quicksand invoke hello-1")]
pub struct InvokeArgs {
    /// How long the function may take, as it is told; a response that comes later is lost
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "900")]
    pub timeout: Duration,
    /// The container
    pub id: String,
    /// The event; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub event: PathBuf,
}

/// Run the program of a container that was created
///
/// With --checkpoint-at, returns when the image is there.
#[derive(Args, Debug)]
pub struct StartArgs {
    #[command(flatten)]
    pub entry: EntryArgs,
    /// The container
    pub id: String,
}

/// Create a container, start it, wait for it and delete it
///
/// Signals are passed on, standard streams are the container's, and its exit code is ours (128 + signal where one killed
/// it). An error of our own exits with 128. With --checkpoint-at an image is taken of the program when it is ready: the exit
/// code is 0 then, and 124 where the program ended or the time was over before.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  mkdir -p bundle/rootfs/bin && cp /bin/busybox bundle/rootfs/bin/sh\n  quicksand spec --bundle bundle sh -c 'echo hello'\n  quicksand run --bundle bundle hello\n  quicksand run --bundle bundle --checkpoint-at=listen --image-path images/ready web"
)]
pub struct RunArgs {
    #[command(flatten)]
    pub create: CreateArgs,
    /// Return when the container runs
    #[arg(long, short)]
    pub detach: bool,
    /// Keep the container's state when it has ended
    #[arg(long)]
    pub keep: bool,
    /// Go on from this image instead of starting the program
    #[arg(long, value_name = "DIR")]
    pub image: Option<PathBuf>,
    /// Of `restore`: whether to tell what it took.
    #[arg(skip)]
    pub stats: Option<ListFormat>,
    /// Of `restore`: whether to record the working set.
    #[arg(skip)]
    pub record: Option<bool>,
    #[command(flatten)]
    pub entry: EntryArgs,
    #[command(flatten)]
    pub event: EventArgs,
}

/// Store a running container in an image
///
/// Every process is stopped, the container is written to the image, and then it ends, or goes on with --leave-running. An
/// image is there as a whole or not at all. What an image cannot hold (a mount namespace of its own) refuses the checkpoint,
/// by name, and the container goes on.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  quicksand checkpoint --image-path images/ready web\n  quicksand restore --image-path images/ready --bundle bundle web-2"
)]
pub struct CheckpointArgs {
    /// The directory that becomes the image; it must not be there, or be empty
    #[arg(long, value_name = "DIR")]
    pub image_path: PathBuf,
    /// Let the container go on afterwards
    #[arg(long)]
    pub leave_running: bool,
    /// How pages are stored: `none` (mapped as they lie), or `zstd` (smaller, and copied at a restore)
    #[arg(long, value_enum, default_value = "none")]
    pub compression: Compression,
    /// Store all pages. Without this, where the container was restored from an image in the same directory, only those that this
    /// image does not have: the new one needs it then
    #[arg(long)]
    pub full: bool,
    /// What becomes of TCP connections: `reset` (after a restore the program sees ECONNRESET), or `refuse` (there is no
    /// checkpoint as long as there are any)
    #[arg(long, value_enum, default_value = "reset")]
    pub tcp: Tcp,
    /// Accepted for compatibility with other runtimes
    #[arg(long, hide = true)]
    pub work_path: Option<PathBuf>,
    /// The container
    pub id: String,
}

/// Look after images
///
/// An image is a directory that `checkpoint` made. Images that lie in one directory can share pages: one that was taken of
/// a restored container may need its parent beside it.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// List the images in a directory
    Ls {
        /// The directory
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Names only
        #[arg(long, short)]
        quiet: bool,
    },
    /// Print what an image holds, as JSON
    Inspect {
        /// The image
        image: PathBuf,
    },
    /// Check every byte of images
    Verify {
        /// The images
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<PathBuf>,
    },
    /// Write an image anew, so that it needs no parent
    Flatten {
        /// The image
        image: PathBuf,
        /// The directory that becomes the new one
        new: PathBuf,
        /// How its pages are stored
        #[arg(long, value_enum, default_value = "none")]
        compression: Compression,
    },
    /// Remove images; what was restored from them goes on
    Rm {
        /// The images
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<PathBuf>,
        /// Also where another image needs its pages
        #[arg(long, short)]
        force: bool,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Tcp {
    #[default]
    Reset,
    Refuse,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    #[default]
    None,
    Zstd,
}

/// Create a container from an image and let it go on where it was
///
/// The bundle is the one that the image was made with, or one like it: its root, its mounts. Standard streams are ours. As
/// with `run`, signals are passed on and the exit code is the container's; --detach returns when it runs.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  quicksand restore --image-path images/ready --bundle bundle --detach web-2"
)]
pub struct RestoreArgs {
    #[command(flatten)]
    pub create: CreateArgs,
    /// The image
    #[arg(long, value_name = "DIR")]
    pub image_path: PathBuf,
    /// Return when the container runs
    #[arg(long, short)]
    pub detach: bool,
    /// Keep the container's state when it has ended
    #[arg(long)]
    pub keep: bool,
    /// Record in the image which of its pages are used until the container's first output (to a standard stream or the
    /// network), so that later restores fetch them in one go. Without this it is done where the image has no record, may be
    /// written, and the command stays anyway; with --detach it stays until then
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub record_working_set: Option<bool>,
    /// When it runs, tell on standard error what that took: as a `table`, or as `json`
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "table", value_name = "FORMAT")]
    pub stats: Option<ListFormat>,
    #[command(flatten)]
    pub event: EventArgs,
    /// Accepted for compatibility with other runtimes: pages are always read when they are first touched
    #[arg(long, hide = true)]
    pub background: bool,
    /// Accepted for compatibility with other runtimes
    #[arg(long, hide = true)]
    pub direct: bool,
    /// Accepted for compatibility with other runtimes
    #[arg(long, hide = true)]
    pub work_path: Option<PathBuf>,
}

/// Tell what the restore of a container took so far
///
/// Time by stage, kernel objects made of those that the image holds, pages of the image touched and copied.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  quicksand stats --first-response --format json web-2")]
pub struct StatsArgs {
    /// `table`, or `json`
    #[arg(long, short, value_enum, default_value = "table")]
    pub format: ListFormat,
    /// The container has just given its first response
    #[arg(long)]
    pub first_response: bool,
    /// The container
    pub id: String,
}

/// Create a container that `start` will run
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// The directory that holds config.json
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// The Unix socket that receives the terminal's other end
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Write the sandbox's process id here
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Accepted for compatibility with other runtimes
    #[arg(long, hide = true)]
    pub no_pivot: bool,
    /// Accepted for compatibility with other runtimes
    #[arg(long, hide = true)]
    pub no_new_keyring: bool,
    /// Pass this many further descriptors to the container (none can be)
    #[arg(long, hide = true, default_value = "0")]
    pub preserve_fds: u32,
    /// A name for the container, unique below `--root`
    pub id: String,
}

/// What takes nothing but a container.
#[derive(Args, Debug)]
pub struct IdArgs {
    /// The container
    pub id: String,
}

/// Run a further program in a container
#[derive(Args, Debug)]
pub struct ExecArgs {
    /// The process as an OCI `process` object, instead of a command
    #[arg(long, short, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Give it a terminal
    #[arg(long, short)]
    pub tty: bool,
    /// The Unix socket that receives the terminal's other end
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Write the process id of the command that stands for the program here
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Return when the program runs
    #[arg(long, short)]
    pub detach: bool,
    /// Run as this user
    #[arg(long, short, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// A further group
    #[arg(long, short = 'g', value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// Working directory [default: the container's]
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// Add a variable to the container's environment
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// A further capability
    #[arg(long, short, value_name = "CAP")]
    pub cap: Vec<String>,
    /// Let it gain no privileges by executing a file
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub no_new_privs: Option<bool>,
    /// Accepted for compatibility with other runtimes
    #[arg(long, hide = true)]
    pub cgroup: Vec<String>,
    /// Accepted for compatibility with other runtimes
    #[arg(long, hide = true)]
    pub ignore_paused: bool,
    /// Pass this many further descriptors to the program (none can be)
    #[arg(long, hide = true, default_value = "0")]
    pub preserve_fds: u32,
    /// The container
    pub id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Send a signal to a container
#[derive(Args, Debug)]
pub struct KillArgs {
    /// Send it to every process of the container
    #[arg(long, short)]
    pub all: bool,
    /// Send it to this process of the container (its number inside)
    #[arg(long)]
    pub pid: Option<i32>,
    /// The container
    pub id: String,
    /// A name (TERM, SIGTERM) or a number
    #[arg(default_value = "TERM", allow_hyphen_values = true)]
    pub signal: String,
}

/// List the processes of a container
#[derive(Args, Debug)]
pub struct PsArgs {
    /// `table`, or `json`: a bare array of process numbers
    #[arg(long, short, value_enum, default_value = "table")]
    pub format: ListFormat,
    /// The container
    pub id: String,
    /// Accepted for compatibility with other runtimes
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub ps_options: Vec<String>,
}

/// Delete a container that has stopped
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Kill it first where it runs; no error where it does not exist
    #[arg(long, short)]
    pub force: bool,
    /// The containers
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
}

/// List containers
#[derive(Args, Debug)]
pub struct ListArgs {
    /// How they are listed
    #[arg(long, short, value_enum, default_value = "table")]
    pub format: ListFormat,
    /// Ids only
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    Table,
    Json,
}

/// Write a config.json to start from
#[derive(Args, Debug)]
pub struct SpecArgs {
    /// The directory that gets config.json
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// What the container runs
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, default_value = "sh", value_name = "CMD")]
    pub command: Vec<String>,
}

/// Say what this machine offers, and what to do about what it lacks
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// How findings are printed
    #[arg(long, short, value_enum, default_value = "text")]
    pub format: DoctorFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DoctorFormat {
    Text,
    Json,
}

/// Reads the command line; a bad one ends the process with the code of our own errors.
pub fn parse() -> Cli {
    Cli::try_parse().unwrap_or_else(|e| {
        // Nobody to tell where standard error is closed.
        let _ = e.print();
        std::process::exit(if e.use_stderr() { i32::from(crate::FAILED) } else { 0 })
    })
}

/// What an annotation that sets a flag begins with.
const FLAG: &str = "dev.quicksand.flag.";

impl Global {
    /// These flags with those that a container's annotations set (`dev.quicksand.flag.NAME`), where that is allowed.
    pub fn with_annotations(&self, annotations: &BTreeMap<String, String>) -> Result<Global> {
        let mut global = self.clone();
        for (key, value) in annotations {
            let Some(name) = key.strip_prefix(FLAG) else { continue };
            if !self.allow_flag_override {
                fail!("the annotation {key} sets a flag, and --allow-flag-override was not given");
            }
            let text = format!("--{name}={value}");
            let one = Cli::try_parse_from(["quicksand", &text, "features"])
                .map_err(|_| Error::new(format!("the annotation {key}: there is no {text}")))?
                .global;
            match name {
                "platform" => global.platform = one.platform,
                "network" => global.network = one.network,
                "overlay" => global.overlay = one.overlay,
                "directfs" => global.directfs = one.directfs,
                "strace" => global.strace = one.strace,
                _ => fail!("the annotation {key}: a container may not set this flag"),
            }
        }
        Ok(global)
    }

    /// The directory of all containers' state.
    pub fn state_root(&self) -> PathBuf {
        if let Some(root) = &self.root {
            return root.clone();
        }
        let user = rustix::process::geteuid();
        if user.is_root() {
            return PathBuf::from("/run/quicksand");
        }
        // Without a session there may be no folder for it; what lies elsewhere is checked to be the user's own.
        match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
            Some(dir) => dir.join("quicksand"),
            None => std::env::temp_dir().join(format!("quicksand-{user}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_set_flags_where_that_is_allowed() {
        let global = |flag: &str| Cli::try_parse_from(["quicksand", flag, "features"]).unwrap().global;
        let set = |name: &str, value: &str| BTreeMap::from([(format!("{FLAG}{name}"), value.to_owned())]);
        let (closed, open) = (global("--debug=false"), global("--allow-flag-override"));
        assert!(closed.with_annotations(&set("network", "none")).is_err());
        assert_eq!(open.with_annotations(&set("network", "none")).unwrap().network, Network::None);
        assert!(open.with_annotations(&set("network", "sideways")).is_err());
        assert!(open.with_annotations(&set("root", "/")).is_err());
        assert!(closed.with_annotations(&BTreeMap::from([("other".into(), "x".into())])).is_ok());
    }

    #[test]
    fn the_arguments_fit_together() {
        <super::Cli as clap::CommandFactory>::command().debug_assert();
    }
}
