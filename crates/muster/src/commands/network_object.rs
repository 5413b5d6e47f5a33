//! `muster server-host|proxy|download-source …`

use clap::{Args, Subcommand};
use muster_client::Client;
use muster_protocol::management::network_object::{NetworkObject, NetworkRoute};
use serde_json::{Map, Value};

use super::confirm::Care;
use super::failure::Failed;
use super::listing::{Column, OutputArg, column, or_dash, print_list, print_one, wide};
use super::network_object_test::TestArgs;

/// A noun: a kind of network objects, with the flags of its fields.
pub trait NetworkNoun: Args {
    /// The kind.
    const ROUTE: NetworkRoute;
    /// What a message calls one.
    const WHAT: &'static str;
    /// Help of each verb.
    const ABOUT: Verbs;
    /// Examples of each verb.
    const EXAMPLES: Verbs;

    /// Returns the fields that are given.
    fn fields(self, client: &Client) -> impl Future<Output = Result<Map<String, Value>, Failed>> + Send;
}

/// A text for each verb.
pub struct Verbs {
    list: &'static str,
    show: &'static str,
    create: &'static str,
    update: &'static str,
    delete: &'static str,
    test: &'static str,
}

/// Verbs of a noun.
#[derive(Debug, Subcommand)]
pub enum NetworkCommand<N: NetworkNoun> {
    #[command(about = N::ABOUT.list, after_help = N::EXAMPLES.list)]
    List(ListArgs),
    #[command(about = N::ABOUT.show, after_help = N::EXAMPLES.show)]
    Show(ShowArgs),
    #[command(about = N::ABOUT.create, after_help = N::EXAMPLES.create)]
    Create(CreateArgs<N>),
    #[command(about = N::ABOUT.update, after_help = N::EXAMPLES.update)]
    Update(UpdateArgs<N>),
    #[command(about = N::ABOUT.delete, after_help = N::EXAMPLES.delete)]
    Delete(DeleteArgs),
    #[command(about = N::ABOUT.test, after_help = N::EXAMPLES.test)]
    Test(TestArgs),
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Name or id
    name: String,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `create`.
#[derive(Args, Debug)]
pub struct CreateArgs<N: NetworkNoun> {
    /// Name
    name: String,
    /// Id [default: generated]
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    fields: N,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `update`.
#[derive(Args, Debug)]
pub struct UpdateArgs<N: NetworkNoun> {
    /// Name or id
    name: String,
    /// New name
    #[arg(long, value_name = "NAME")]
    rename: Option<String>,
    #[command(flatten)]
    fields: N,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Name or id
    name: String,
    /// Do not ask for confirmation
    #[arg(long, short)]
    yes: bool,
}

/// Flags of `server-host create` and `update`.
#[derive(Args, Debug)]
pub struct ServerHostFields {
    /// URL at which agents reach the fleet (repeatable)
    #[arg(long, value_name = "URL")]
    address: Vec<String>,
    /// Make this the default Fleet Server host
    #[arg(long)]
    default: bool,
    #[command(flatten)]
    proxy: ProxyArg,
}

/// Flags of `proxy create` and `update`.
#[derive(Args, Debug)]
pub struct ProxyFields {
    /// URL of the proxy
    #[arg(long, value_name = "URL")]
    address: Option<String>,
    /// Header to send to the proxy (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = header)]
    header: Vec<(String, String)>,
}

/// Flags of `download-source create` and `update`.
#[derive(Args, Debug)]
pub struct DownloadSourceFields {
    /// URL from which agents download their binaries
    #[arg(long, value_name = "URL")]
    address: Option<String>,
    /// Make this the default download source
    #[arg(long)]
    default: bool,
    #[command(flatten)]
    proxy: ProxyArg,
}

/// `--proxy` and `--no-proxy`.
#[derive(Args, Debug)]
pub struct ProxyArg {
    /// Proxy, by name or id, through which agents connect
    #[arg(long, value_name = "PROXY")]
    proxy: Option<String>,
    /// Connect without a proxy
    #[arg(long, conflicts_with = "proxy")]
    no_proxy: bool,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

impl ProxyArg {
    async fn add_to(self, fields: &mut Map<String, Value>, client: &Client) -> Result<(), Failed> {
        if self.no_proxy {
            fields.insert("proxy_id".into(), Value::Null);
        }
        if let Some(named) = self.proxy {
            let proxy = find::<ProxyFields>(client, &named).await?;
            fields.insert("proxy_id".into(), proxy.id.into());
        }
        Ok(())
    }
}

fn add_default(fields: &mut Map<String, Value>, is_default: bool) {
    // Without the flag, an update keeps the mark; another object can take it over.
    if is_default {
        fields.insert("is_default".into(), true.into());
    }
}

impl NetworkNoun for ServerHostFields {
    const ROUTE: NetworkRoute = NetworkRoute::ServerHosts;
    const WHAT: &'static str = "Fleet Server host";
    const ABOUT: Verbs = Verbs {
        list: "List Fleet Server hosts",
        show: "Show a Fleet Server host",
        create: "Create a Fleet Server host: a set of URLs at which agents reach the fleet",
        update: "Change a Fleet Server host; policies that use it get a new revision",
        delete: "Delete a Fleet Server host; policies that use it change to the default",
        test: "Test from the server whether a Fleet Server answers at each URL",
    };
    const EXAMPLES: Verbs = Verbs {
        list: "Examples:\n  muster server-host list\n  muster server-host list --output json",
        show: "Examples:\n  muster server-host show main",
        create: "Examples:\n  muster server-host create main --address https://fleet.example.com:8220 --default\n  \
            muster server-host create branch --address https://branch.example.com:8220 --proxy corporate",
        update: "Examples:\n  muster server-host update main --address https://one.example.com:8220 \
            --address https://two.example.com:8220\n  muster server-host update branch --no-proxy",
        delete: "Examples:\n  muster server-host delete branch --yes",
        test: "Examples:\n  muster server-host test main\n  muster server-host test main --output json",
    };

    async fn fields(self, client: &Client) -> Result<Map<String, Value>, Failed> {
        let mut fields = Map::new();
        if !self.address.is_empty() {
            fields.insert("host_urls".into(), self.address.into());
        }
        add_default(&mut fields, self.default);
        self.proxy.add_to(&mut fields, client).await?;
        Ok(fields)
    }
}

impl NetworkNoun for ProxyFields {
    const ROUTE: NetworkRoute = NetworkRoute::Proxies;
    const WHAT: &'static str = "proxy";
    const ABOUT: Verbs = Verbs {
        list: "List proxies",
        show: "Show a proxy",
        create: "Create a proxy for agents",
        update: "Change a proxy; policies that use it get a new revision",
        delete: "Delete a proxy; connections through it become direct",
        test: "Test from the server whether a proxy connects to the default Fleet Server host",
    };
    const EXAMPLES: Verbs = Verbs {
        list: "Examples:\n  muster proxy list\n  muster proxy list --output json",
        show: "Examples:\n  muster proxy show corporate",
        create: "Examples:\n  muster proxy create corporate --address http://proxy.example.com:3128\n  \
            muster proxy create branch --address http://10.0.0.1:3128 --header X-Site=7",
        update: "Examples:\n  muster proxy update corporate --address http://proxy2.example.com:3128",
        delete: "Examples:\n  muster proxy delete corporate --yes",
        test: "Examples:\n  muster proxy test corporate",
    };

    async fn fields(self, _: &Client) -> Result<Map<String, Value>, Failed> {
        let mut fields = Map::new();
        fields.extend(self.address.map(|url| ("url".to_owned(), url.into())));
        let headers: Map<String, Value> = self.header.into_iter().map(|(name, value)| (name, value.into())).collect();
        if !headers.is_empty() {
            fields.insert("proxy_headers".into(), headers.into());
        }
        Ok(fields)
    }
}

impl NetworkNoun for DownloadSourceFields {
    const ROUTE: NetworkRoute = NetworkRoute::DownloadSources;
    const WHAT: &'static str = "download source";
    const ABOUT: Verbs = Verbs {
        list: "List download sources",
        show: "Show a download source",
        create: "Create a download source, from which agents download their binaries",
        update: "Change a download source; policies that use it get a new revision",
        delete: "Delete a download source; policies that use it change to the default",
        test: "Test from the server whether a download source has packages of agents",
    };
    const EXAMPLES: Verbs = Verbs {
        list: "Examples:\n  muster download-source list\n  muster download-source list --output json",
        show: "Examples:\n  muster download-source show mirror",
        create: "Examples:\n  muster download-source create mirror --address https://mirror.example.com/downloads/ --default",
        update: "Examples:\n  muster download-source update mirror --proxy corporate",
        delete: "Examples:\n  muster download-source delete mirror --yes",
        test: "Examples:\n  muster download-source test mirror",
    };

    async fn fields(self, client: &Client) -> Result<Map<String, Value>, Failed> {
        let mut fields = Map::new();
        fields.extend(self.address.map(|url| ("host".to_owned(), url.into())));
        add_default(&mut fields, self.default);
        self.proxy.add_to(&mut fields, client).await?;
        Ok(fields)
    }
}

const COLUMNS: &[Column<NetworkObject>] = &[
    column("ID", |object| object.id.clone()),
    column("NAME", |object| object.name.clone()),
    column("DEFAULT", |object| if object.is_default == Some(true) { "yes" } else { "-" }.to_owned()),
    column("ADDRESS", address),
    column("PROXY", |object| or_dash(object.fields.get("proxy_id").and_then(Value::as_str))),
    wide("UPDATED", |object| object.updated_at.clone()),
];

fn address(object: &NetworkObject) -> String {
    let urls = object.fields.get("host_urls").and_then(Value::as_array).into_iter().flatten();
    let one = ["url", "host"].into_iter().filter_map(|name| object.fields.get(name));
    urls.chain(one).filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
}

impl<N: NetworkNoun> NetworkCommand<N> {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::List(args) => {
                let objects = client.network_objects(N::ROUTE).await?.items;
                print_list(&objects, args.output.output, COLUMNS, |object| object.id.clone())
            }
            Self::Show(args) => print(&find::<N>(client, &args.name).await?, args.output),
            Self::Create(args) => args.run(client).await,
            Self::Update(args) => args.run(client).await,
            Self::Delete(args) => args.run::<N>(client).await,
            Self::Test(args) => args.run::<N>(client).await,
        }
    }
}

fn print(object: &NetworkObject, output: OutputArg) -> Result<(), Failed> {
    print_one(object, output.output, COLUMNS, |object| object.id.clone())
}

impl<N: NetworkNoun> CreateArgs<N> {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let mut fields = self.fields.fields(client).await?;
        fields.insert("name".into(), self.name.into());
        fields.extend(self.id.map(|id| ("id".to_owned(), id.into())));
        print(&client.create_network_object(N::ROUTE, &fields).await?, self.output)
    }
}

impl<N: NetworkNoun> UpdateArgs<N> {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let found = find::<N>(client, &self.name).await?;
        // The whole object, because the server drops some fields that an update leaves out (MG §13).
        let mut fields = found.fields;
        fields.extend(self.fields.fields(client).await?);
        fields.extend(self.rename.map(|name| ("name".to_owned(), name.into())));
        print(&client.update_network_object(N::ROUTE, &found.id, &fields).await?, self.output)
    }
}

impl DeleteArgs {
    async fn run<N: NetworkNoun>(self, client: &Client) -> Result<(), Failed> {
        let found = find::<N>(client, &self.name).await?;
        let care = Care { yes: self.yes, dry_run: false };
        care.confirm(&format!("Delete the {} {:?}?", N::WHAT, found.name))?;
        let gone = client.delete_network_object(N::ROUTE, &found.id).await?;
        super::print_line(gone.id)
    }
}

/// Returns the object with this id, else with this name.
pub async fn find<N: NetworkNoun>(client: &Client, named: &str) -> Result<NetworkObject, Failed> {
    let objects = client.network_objects(N::ROUTE).await?.items;
    let by_id = objects.iter().position(|object| object.id == named);
    let place = by_id.or_else(|| objects.iter().position(|object| object.name == named));
    place
        .and_then(|place| objects.into_iter().nth(place))
        .ok_or_else(|| Failed::not_found(format!("no {} with the name or id {named:?}", N::WHAT)))
}
