//! `muster serve`.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{ArgAction, Args};
use muster_core::error_chain::chain;
use muster_server::config::problem::Source;
use muster_server::config::source::Entry;
use muster_server::config::value::Raw;
use muster_server::config::{Build, Config, Loaded, document, gather};
use muster_server::{logging, serve};

/// Exit code of a usage error or an invalid configuration.
const USAGE: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  muster serve
      Use the defaults: agents connect to port 8220 over TLS, the server creates the fleet's own CA, and all data is in /var/lib/muster.

  muster serve --data-dir /srv/muster --external-url https://fleet.example:8220
      Use another data directory. Agents connect to the external URL, and the server's certificate covers its host name.

  muster serve --tls-cert fleet.crt --tls-key fleet.key --set timeouts.checkin_long_poll=2m
      Use your own certificate, and set a configuration key on the command line.

  muster serve --print-default-config > /etc/muster/muster.toml
      Create a configuration file that contains all keys with their defaults, commented out.";

/// Run the server
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct ServeArgs {
    /// Configuration file [default: /etc/muster/muster.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// Directory for the database, certificates and keys
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Listener for agents: ADDRESS:PORT, or none
    #[arg(long, value_name = "ADDRESS")]
    agent_listen: Option<String>,
    /// Listener for the agent on this host: ADDRESS:PORT, or none
    #[arg(long, value_name = "ADDRESS")]
    local_listen: Option<String>,
    /// Listener for the management API: ADDRESS:PORT, or none
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// URL that agents use to connect to the fleet, the same for all servers (repeatable)
    #[arg(long, value_name = "URL", action = ArgAction::Append)]
    external_url: Vec<String>,
    /// PEM file with the server's certificate and chain, instead of a certificate signed by the fleet's own CA
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// PEM file with the private key of --tls-cert
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// PEM file with the CAs of client certificates
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<String>,
    /// Whether agents need a client certificate: optional or required
    #[arg(long, value_name = "WHEN")]
    tls_client_auth: Option<String>,
    /// PEM file with the revocation lists of the CAs in --tls-client-ca
    #[arg(long, value_name = "FILE")]
    tls_client_crl: Option<String>,
    /// Serve agents over plain HTTP, on loopback addresses only
    #[arg(long)]
    insecure_http: bool,
    /// URL of a PostgreSQL database, postgres://USER@HOST:PORT/DATABASE [default: SQLite in the data directory]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// File with the fleet's master key [default: master.key in the data directory]
    #[arg(long, value_name = "FILE")]
    master_key_file: Option<String>,
    /// Format of log lines: text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Minimum log level: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Set any configuration key (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE", action = ArgAction::Append)]
    assignments: Vec<String>,
    /// Start a new fleet in a data directory whose database is lost
    ///
    /// Agents of the previous fleet are rejected and must enroll again. The flag has no effect if the database contains a fleet.
    #[arg(long)]
    new_fleet: bool,
    /// Print a configuration file with all keys and their defaults, and exit
    #[arg(long)]
    print_default_config: bool,
    /// Print the effective configuration with the source of each value, and exit
    #[arg(long, conflicts_with = "print_default_config")]
    print_config: bool,
}

impl ServeArgs {
    /// Returns the flags as configuration values.
    fn flags(&self) -> Vec<Entry> {
        // Flags override the same keys in the environment and the file, and are parsed by the same code.
        let texts = [
            ("data_dir", "--data-dir", &self.data_dir),
            ("agent.listen", "--agent-listen", &self.agent_listen),
            ("local.listen", "--local-listen", &self.local_listen),
            ("admin.listen", "--admin-listen", &self.admin_listen),
            ("tls.cert", "--tls-cert", &self.tls_cert),
            ("tls.key", "--tls-key", &self.tls_key),
            ("tls.client_ca", "--tls-client-ca", &self.tls_client_ca),
            ("tls.client_auth", "--tls-client-auth", &self.tls_client_auth),
            ("tls.client_crl", "--tls-client-crl", &self.tls_client_crl),
            ("database", "--database", &self.database),
            ("master_key_file", "--master-key-file", &self.master_key_file),
            ("log.format", "--log-format", &self.log_format),
            ("log.level", "--log-level", &self.log_level),
        ];
        let given = texts.into_iter().filter_map(|(key, flag, value)| Some((key, flag, Raw::Text(value.clone()?))));
        let urls = (!self.external_url.is_empty()).then(|| Raw::List(self.external_url.clone()));
        given
            .chain(urls.map(|urls| ("external_url", "--external-url", urls)))
            .chain(self.insecure_http.then_some(("insecure_http", "--insecure-http", Raw::Flag(true))))
            .map(|(key, flag, raw)| Entry { key: key.into(), raw, source: Source::Flag(flag.into()) })
            .collect()
    }
}

/// Runs the command.
pub fn run(args: ServeArgs) -> ExitCode {
    if args.print_default_config {
        return print(&document::default_file());
    }
    let loaded = match gather::from_process(args.config.as_deref(), args.flags(), args.assignments) {
        Ok(loaded) => loaded,
        Err(problems) => {
            eprintln!("muster serve: {problems}");
            return ExitCode::from(USAGE);
        }
    };
    if args.print_config {
        loaded.ignored.iter().for_each(|ignored| eprintln!("muster serve: warning: {ignored}"));
        return print(&loaded.values.describe());
    }
    start(&loaded, args.new_fleet)
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        // A closed pipe is not an error: the reader does not need the rest.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => fail(&error),
        _ => ExitCode::SUCCESS,
    }
}

fn start(loaded: &Loaded, new_fleet: bool) -> ExitCode {
    // Logging starts first, so that warnings about the configuration appear in the log.
    let log = match logging::start(loaded.config.log_json, &loaded.config.log_level) {
        Ok(log) => log,
        Err(error) => return fail(&*error),
    };
    loaded.warn();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("muster").build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    // `build.rs` sets these variables.
    let build = Build { hash: env!("COMMIT_HASH").into(), time: env!("COMMIT_TIME").into() };
    let config = Config { build, new_fleet, ..loaded.config.clone() };
    let outcome = runtime.block_on(serve::run(&config, &mut io::stdout()));
    // Tasks that still run belong to a start that hangs, or were interrupted by a second signal. There is no need to
    // wait for them.
    runtime.shutdown_background();
    // Before the error, which is the last line.
    log.flush();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    eprintln!("muster serve: {}", chain(error));
    ExitCode::FAILURE
}
