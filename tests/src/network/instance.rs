//! The instance as a whole: planned, started, asked, reconfigured, stopped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tempfile::TempDir;
use trave_host::clock::ManualClock;
use trave_proto::clock::Clock;
use trave_proto::schema::configuration::{GlobalConfiguration, SignedConfiguration};
use trave_proto::schema::log::GrantChange;

use super::caller::{Answer, Caller, Question};
use super::configuration::{self, ConfigurationKeys};
use super::register::Register;
use super::saboteur::Saboteur;
use super::server::Server;
use super::trust_services::Authorities;
use super::{CLIENT, LUEBECK, REGISTER, REGISTER_TOO, SERVICE, START};

/// What an instance is like; the usual one by default.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What the agency's door keeps of contents.
    pub keep_at_client: &'static str,
    /// What the service keeps of contents.
    pub keep_at_provider: &'static str,
    /// Added to the configuration file of the agency's server: routes, limits.
    pub at_client: String,
    /// Added to the configuration file of the register's server.
    pub at_provider: String,
    /// Seconds that the register may take.
    pub register_seconds: u64,
    /// Seconds between two checkpoints.
    pub checkpoint_seconds: u64,
    /// Size of a segment of the message logs.
    pub segment_mib: u64,
    /// Grants of the register's operator.
    pub grants: Vec<GrantChange>,
    /// Whether a saboteur sits on the line between the two security servers.
    pub saboteur: bool,
    /// Whether the register has a second security server.
    pub second: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            keep_at_client: "all",
            keep_at_provider: "all",
            at_client: String::new(),
            at_provider: String::new(),
            register_seconds: 20,
            checkpoint_seconds: 60,
            segment_mib: 1,
            grants: vec![configuration::grant()],
            saboteur: false,
            second: false,
        }
    }
}

/// A running instance.
#[derive(Debug)]
pub struct Instance {
    /// The civil clock of everything in it.
    pub clock: Arc<dyn Clock>,
    /// The same, for the hand that moves it; none where the machine's own clock is used.
    hand: Option<ManualClock>,
    /// Certification authority, OCSP responder, timestamping authority.
    pub authorities: Authorities,
    /// The keys that sign the global configuration.
    pub keys: ConfigurationKeys,
    /// The global configuration published last.
    pub configuration: SignedConfiguration,
    /// The agency's security server.
    pub sh: Server,
    /// The register's security server.
    pub mv: Server,
    /// The register's second security server, if it was planned.
    pub mv_too: Option<Server>,
    /// The register.
    pub register: Register,
    /// Who sits on the line between the two security servers, if that was planned.
    saboteur: Option<Saboteur>,
    _directory: TempDir,
}

impl Instance {
    /// Starts the usual instance.
    pub async fn start() -> Self {
        Self::planned(Plan::default()).await
    }

    /// Starts an instance as planned.
    pub async fn planned(plan: Plan) -> Self {
        let hand = ManualClock::new(START);
        let mut instance = Self::prepared(plan, Arc::new(hand.clone())).await;
        instance.hand = Some(hand);
        instance.sh.start().await.unwrap();
        instance.mv.start().await.unwrap();
        if let Some(mv_too) = &mut instance.mv_too {
            mv_too.start().await.unwrap();
        }
        instance
    }

    /// Prepares an instance with this clock, whose security servers have not been started.
    pub async fn prepared(plan: Plan, clock: Arc<dyn Clock>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let reserve = |id, name: &str| Server::reserve(id, directory.path().join(name), Arc::clone(&clock));
        let (sh, mv) = (reserve(LUEBECK, "sh"), reserve(REGISTER, "mv"));
        let mv_too = plan.second.then(|| reserve(REGISTER_TOO, "mv-too"));
        let authorities = Authorities::start(Arc::clone(&clock)).await;
        let keys = ConfigurationKeys::default();
        let saboteur = match plan.saboteur {
            true => Some(Saboteur::start(mv.peer).await),
            false => None,
        };
        let seeming = saboteur.as_ref().map_or(mv.peer, |saboteur| saboteur.address);
        let address = |server: &str| match server {
            LUEBECK => Some(sh.peer.to_string()),
            REGISTER => Some(seeming.to_string()),
            REGISTER_TOO => mv_too.as_ref().map(|server| server.peer.to_string()),
            _ => Some("127.0.0.1:1".into()),
        };
        let configuration = configuration::first(authorities.listed(), address, clock.now().as_millis());
        let configuration = keys.sign(&configuration);
        let register = Register::start().await;
        for server in [&sh, &mv].into_iter().chain(&mv_too) {
            server.furnish(&authorities, keys.anchor().bytes(), &configuration);
        }
        sh.configure((plan.checkpoint_seconds, plan.segment_mib), &agency(&plan, &sh));
        for server in [&mv].into_iter().chain(&mv_too) {
            server.configure((plan.checkpoint_seconds, plan.segment_mib), &service(&plan, &register));
            // Each has grants of its own.
            for grant in &plan.grants {
                server.grant(grant.clone()).await;
            }
        }
        Self {
            clock,
            hand: None,
            authorities,
            keys,
            configuration,
            sh,
            mv,
            mv_too,
            register,
            saboteur,
            _directory: directory,
        }
    }

    /// The saboteur on the line.
    ///
    /// # Panics
    /// If none was planned.
    pub fn saboteur(&self) -> &Saboteur {
        self.saboteur.as_ref().expect("a saboteur was planned")
    }

    /// Where the configuration says that the register's security server is: at the saboteur's, if there is one.
    pub fn way_to_register(&self) -> SocketAddr {
        self.saboteur.as_ref().map_or(self.mv.peer, |saboteur| saboteur.address)
    }

    /// A caller with a connection of its own to the agency's first door.
    pub async fn caller(&self) -> Caller {
        Caller::connect(self.sh.door).await
    }

    /// Asks the usual question with this message.
    pub async fn ask(&self, message: &[u8]) -> Answer {
        self.caller().await.ask(Question::new().message(message)).await
    }

    /// The next configuration, changed as wanted, signed by both keys. It is not distributed.
    pub fn next_configuration(&self, change: impl FnOnce(&mut GlobalConfiguration)) -> SignedConfiguration {
        let mut next = configuration::successor(&self.configuration, self.clock.now().as_millis());
        change(&mut next);
        self.keys.sign(&next)
    }

    /// What a configuration says, to be changed and signed anew.
    pub fn unsigned(signed: &SignedConfiguration) -> GlobalConfiguration {
        GlobalConfiguration::decode(signed.configuration.clone()).unwrap()
    }

    /// The number of a configuration.
    pub fn number(signed: &SignedConfiguration) -> u64 {
        GlobalConfiguration::decode(signed.configuration.clone()).unwrap().number
    }

    /// Gives all security servers, which do not run, certificates and a configuration that are valid now.
    pub fn renew(&mut self) {
        self.configuration = self.next_configuration(|_| {});
        for server in [&self.sh, &self.mv].into_iter().chain(&self.mv_too) {
            server.certify(&self.authorities);
            server.put_configuration(&self.configuration);
        }
    }

    /// Moves the civil clock.
    pub fn advance(&self, duration: Duration) {
        self.hand.as_ref().expect("the clock is in the test's hand").advance(duration);
    }

    /// Stops everything in order.
    pub async fn stop(&mut self) {
        self.sh.stop().await;
        self.mv.stop().await;
        if let Some(mv_too) = &mut self.mv_too {
            mv_too.stop().await;
        }
        self.register.stop().await;
        self.authorities.stop().await;
    }
}

fn agency(plan: &Plan, server: &Server) -> String {
    let (keep, more, door) = (plan.keep_at_client, &plan.at_client, server.door);
    format!("[[agency]]\nlisten = \"{door}\"\nsubsystem = \"{CLIENT}\"\nkeep_content = \"{keep}\"\n{more}")
}

fn service(plan: &Plan, register: &Register) -> String {
    let (keep, more, seconds) = (plan.keep_at_provider, &plan.at_provider, plan.register_seconds);
    format!(
        "[[service]]\nid = \"{SERVICE}\"\nbackend = \"http://{}\"\nkeep_content = \"{keep}\"\n\
         time_out_seconds = {seconds}\n{more}",
        register.address
    )
}
