//! The changes for which an administrator can apply, as commands.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use trave_proto::certificate::Certificate;
use trave_proto::checkpoint::WitnessVerifier;
use trave_proto::schema::configuration::{
    Administrator, Auditor, AuditorRole, CatalogueEntry, Deadlines, GlobalConfiguration, Group, Member,
    SecurityServer, Service, ServiceKind, Subsystem, Witness, Witnessing,
};
use trave_proto::schema::management::{RemoveKey, SuspendSecurityServer, act::Change};

use super::Failure;

#[derive(Debug, Subcommand)]
pub(super) enum ChangeCommand {
    /// Members: organisations of the instance
    #[command(subcommand)]
    Member(MemberCommand),
    /// Subsystems of a member
    #[command(subcommand)]
    Subsystem(SubsystemCommand),
    /// Security servers
    #[command(subcommand)]
    Server(ServerCommand),
    /// Services of the catalogue
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Purposes of the catalogue
    #[command(subcommand)]
    Purpose(CatalogueCommand),
    /// Legal bases of the catalogue
    #[command(subcommand)]
    LegalBasis(CatalogueCommand),
    /// Groups of members and subsystems, to which providers can grant something together
    #[command(subcommand)]
    Group(GroupCommand),
    /// Witnesses, which cosign the checkpoints of message logs
    #[command(subcommand)]
    Witness(WitnessCommand),
    /// Rules that all security servers share
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Administrators
    #[command(subcommand)]
    Administrator(AdministratorCommand),
    /// Auditors, who may ask security servers what their message logs hold
    #[command(subcommand)]
    Auditor(AuditorCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum MemberCommand {
    /// Register a member, or change its name; its subsystems stay
    Add {
        /// INSTANCE/CLASS/MEMBER
        id: String,
        /// Its name, for people
        #[arg(long)]
        name: String,
    },
    /// Remove a member without servers and services
    Remove {
        /// INSTANCE/CLASS/MEMBER
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum SubsystemCommand {
    /// Register a subsystem of a registered member
    Add {
        /// INSTANCE/CLASS/MEMBER/SUBSYSTEM
        id: String,
        /// Its name, for people
        #[arg(long)]
        name: String,
    },
    /// Remove a subsystem that no server hosts
    Remove {
        /// INSTANCE/CLASS/MEMBER/SUBSYSTEM
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ServerCommand {
    /// Register a security server, or change its entry; its keys come by enrolment
    Add {
        /// INSTANCE/CLASS/MEMBER/SERVER
        id: String,
        /// host:port of its door for other security servers
        #[arg(long)]
        address: String,
        /// A subsystem that is registered on it
        #[arg(long = "subsystem")]
        subsystems: Vec<String>,
    },
    /// Suspend a security server: nobody talks to it
    Suspend {
        /// INSTANCE/CLASS/MEMBER/SERVER
        id: String,
    },
    /// End a suspension
    Resume {
        /// INSTANCE/CLASS/MEMBER/SERVER
        id: String,
    },
    /// Remove a security server; its certificates are revoked
    Remove {
        /// INSTANCE/CLASS/MEMBER/SERVER
        id: String,
    },
    /// Take one of its keys out of force; its certificate is revoked
    RemoveKey {
        /// INSTANCE/CLASS/MEMBER/SERVER
        id: String,
        /// SHA-256 of the key's SubjectPublicKeyInfo, or of the log's public key, in hexadecimal
        key: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// Register a service, or change its entry
    Add(ServiceArguments),
    /// Remove a service
    Remove {
        /// INSTANCE/CLASS/MEMBER/SUBSYSTEM/SERVICE
        id: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct ServiceArguments {
    /// INSTANCE/CLASS/MEMBER/SUBSYSTEM/SERVICE
    id: String,
    /// Its title, for people
    #[arg(long)]
    title: String,
    /// It speaks REST, not gRPC
    #[arg(long, conflicts_with = "methods")]
    rest: bool,
    /// A method: /package.Service/Method, /package.Service/* or /*
    #[arg(long = "method", required_unless_present = "rest")]
    methods: Vec<String>,
    /// Code of a purpose for which it may be called
    #[arg(long = "purpose", required = true)]
    purposes: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum CatalogueCommand {
    /// Register an entry, or change it
    Add {
        /// 1 to 64 characters of A-Z a-z 0-9 . _ -
        code: String,
        /// What it means, in English
        #[arg(long)]
        text: String,
        /// What it means, in German
        #[arg(long)]
        text_de: String,
        /// Where it is laid down
        #[arg(long)]
        citation: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum GroupCommand {
    /// Register a group, or change it: those who belong to it are given all
    Put {
        /// 1 to 64 characters of A-Z a-z 0-9 . _ -
        code: String,
        /// What those in it have in common
        #[arg(long)]
        name: String,
        /// A subsystem, or a member with all its subsystems; may be repeated
        #[arg(long = "member")]
        members: Vec<String>,
    },
    /// Remove a group: what is granted to it allows nothing any more
    Remove {
        /// The group's code
        code: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum WitnessCommand {
    /// Register a witness, or change its entry. Security servers of a release
    /// without witnesses cannot read a configuration that names one
    Add {
        /// Its verifier key, as `trave-registry witness` shows it at its start: NAME+ID+KEY
        key: WitnessVerifier,
        /// Member class of the state in which it stands
        #[arg(long)]
        class: String,
        /// Where checkpoints are submitted, without /add-checkpoint
        #[arg(long)]
        url: String,
    },
    /// Remove a witness that the policy does not ask for by name
    Remove {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Who must have cosigned the checkpoints of message logs, and what happens while they have not
    Witnessing {
        /// Name of a witness that must cosign; may be repeated
        #[arg(long = "required")]
        required: Vec<String>,
        /// How many witnesses of other member classes than the log's must cosign
        #[arg(long, default_value_t = 1)]
        of_other_classes: u32,
        #[command(flatten)]
        deadlines: DeadlineArguments,
    },
    /// What happens while a log that grows gets no timestamp
    Timestamping {
        #[command(flatten)]
        deadlines: DeadlineArguments,
    },
}

#[derive(Debug, Args)]
pub(super) struct DeadlineArguments {
    /// After how many minutes without people are told
    #[arg(long, default_value_t = 60, value_name = "MINUTES")]
    alarm_after: u32,
    /// After how many minutes without the security server refuses exchanges; if absent, never
    #[arg(long, value_name = "MINUTES")]
    refuse_after: Option<u32>,
}

impl DeadlineArguments {
    fn deadlines(&self) -> Deadlines {
        let millis = |minutes: u32| u64::from(minutes) * 60_000;
        Deadlines {
            alarm_after_ms: millis(self.alarm_after),
            refuse_after_ms: self.refuse_after.map_or(0, millis),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum AdministratorCommand {
    /// Register an administrator by the key of a certificate
    Add {
        /// The person's name
        name: String,
        /// Member class for which the person acts
        #[arg(long)]
        class: String,
        /// The person's certificate, PEM
        #[arg(long)]
        certificate: PathBuf,
    },
    /// Remove an administrator
    Remove {
        /// The person's name
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum AuditorCommand {
    /// Register an auditor by the key of a certificate, or change the entry. Security servers of a release without
    /// registered auditors cannot read a configuration that names one
    Add(AuditorArguments),
    /// Withdraw an auditor: refused by every security server as soon as it has the configuration
    Remove {
        /// The auditor's name
        name: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct AuditorArguments {
    /// The name under which readings are logged
    name: String,
    /// The auditor's certificate, PEM, as `trave-audit init` makes one
    #[arg(long)]
    certificate: PathBuf,
    /// Is a data protection officer, who releases searches by person
    #[arg(long)]
    data_protection_officer: bool,
    /// INSTANCE/CLASS: sees the exchanges of all members of a class; may be repeated
    #[arg(long = "class", required_unless_present = "members")]
    classes: Vec<String>,
    /// INSTANCE/CLASS/MEMBER: sees the exchanges of a member; may be repeated
    #[arg(long = "member")]
    members: Vec<String>,
    /// May export proofs with contents
    #[arg(long)]
    contents: bool,
}

/// The change that a command stands for, given the configuration in force.
pub(super) fn change_of(
    command: ChangeCommand,
    configuration: &GlobalConfiguration,
) -> Result<Change, Failure> {
    Ok(match command {
        ChangeCommand::Member(MemberCommand::Add { id, name }) => {
            let known = configuration.members.iter().find(|member| member.id == id);
            let subsystems = known.map(|member| member.subsystems.clone()).unwrap_or_default();
            Change::PutMember(Member { id, name, subsystems })
        }
        ChangeCommand::Member(MemberCommand::Remove { id }) => Change::RemoveMember(id),
        ChangeCommand::Subsystem(command) => subsystem(command, configuration)?,
        ChangeCommand::Server(command) => server(command)?,
        ChangeCommand::Service(ServiceCommand::Add(arguments)) => service(arguments),
        ChangeCommand::Service(ServiceCommand::Remove { id }) => Change::RemoveService(id),
        ChangeCommand::Purpose(command) => Change::PutPurpose(catalogue_entry(command)),
        ChangeCommand::LegalBasis(command) => Change::PutLegalBasis(catalogue_entry(command)),
        ChangeCommand::Group(GroupCommand::Put { code, name, members }) => {
            Change::PutGroup(Group { code, name, members })
        }
        ChangeCommand::Group(GroupCommand::Remove { code }) => Change::RemoveGroup(code),
        ChangeCommand::Witness(WitnessCommand::Add { key, class, url }) => {
            let public_key = bytes::Bytes::copy_from_slice(key.public_key());
            Change::PutWitness(Witness { name: key.name().into(), public_key, class, url })
        }
        ChangeCommand::Witness(WitnessCommand::Remove { name }) => Change::RemoveWitness(name),
        ChangeCommand::Policy(command) => policy(command, configuration),
        ChangeCommand::Auditor(AuditorCommand::Add(arguments)) => auditor(arguments)?,
        ChangeCommand::Auditor(AuditorCommand::Remove { name }) => Change::RemoveAuditor(name),
        ChangeCommand::Administrator(AdministratorCommand::Add { name, class, certificate }) => {
            let certificate = Certificate::from_der(&CertificateDer::from_pem_file(&certificate)?)?;
            let key = certificate.spki_digest().to_bytes();
            let public_key = certificate.spki().to_vec().into();
            Change::PutAdministrator(Administrator { name, class, key, public_key })
        }
        ChangeCommand::Administrator(AdministratorCommand::Remove { name }) => {
            Change::RemoveAdministrator(name)
        }
    })
}

fn auditor(arguments: AuditorArguments) -> Result<Change, Failure> {
    let AuditorArguments { name, certificate, data_protection_officer, classes, members, contents } =
        arguments;
    let certificate = Certificate::from_der(&CertificateDer::from_pem_file(&certificate)?)?;
    let key = certificate.spki_digest().to_bytes();
    let role = match data_protection_officer {
        true => AuditorRole::DataProtectionOfficer,
        false => AuditorRole::Auditor,
    };
    Ok(Change::PutAuditor(Auditor { name, role: role.into(), key, classes, members, contents }))
}

fn subsystem(command: SubsystemCommand, configuration: &GlobalConfiguration) -> Result<Change, Failure> {
    let (SubsystemCommand::Add { id, .. } | SubsystemCommand::Remove { id }) = &command;
    let owner = id.rsplit_once('/').map_or("", |(member, _)| member);
    let member = configuration.members.iter().find(|member| member.id == owner);
    let mut member = member.cloned().ok_or_else(|| format!("{owner:?} is no registered member"))?;
    let before = member.subsystems.len();
    member.subsystems.retain(|subsystem| subsystem.id != *id);
    match command {
        SubsystemCommand::Add { id, name } => member.subsystems.push(Subsystem { id, name }),
        SubsystemCommand::Remove { id } if member.subsystems.len() == before => {
            return Err(format!("{id:?} is no registered subsystem").into());
        }
        SubsystemCommand::Remove { .. } => {}
    }
    Ok(Change::PutMember(member))
}

/// The policy in force, with one rule changed.
fn policy(command: PolicyCommand, configuration: &GlobalConfiguration) -> Change {
    let mut policy = configuration.policy.clone().unwrap_or_default();
    match command {
        PolicyCommand::Witnessing { required, of_other_classes, deadlines } => {
            let deadlines = Some(deadlines.deadlines());
            policy.witnessing = Some(Witnessing { required, of_other_classes, deadlines });
        }
        PolicyCommand::Timestamping { deadlines } => policy.timestamping = Some(deadlines.deadlines()),
    }
    Change::PutPolicy(policy)
}

fn server(command: ServerCommand) -> Result<Change, Failure> {
    Ok(match command {
        ServerCommand::Add { id, address, subsystems } => {
            Change::PutSecurityServer(SecurityServer { id, address, subsystems, ..Default::default() })
        }
        ServerCommand::Suspend { id } => {
            Change::SuspendSecurityServer(SuspendSecurityServer { id, suspended: true })
        }
        ServerCommand::Resume { id } => {
            Change::SuspendSecurityServer(SuspendSecurityServer { id, suspended: false })
        }
        ServerCommand::Remove { id } => Change::RemoveSecurityServer(id),
        ServerCommand::RemoveKey { id, key } => {
            let key = hex::decode(key).map_err(|_| "the key is not in hexadecimal")?.into();
            Change::RemoveKey(RemoveKey { security_server: id, key })
        }
    })
}

fn service(arguments: ServiceArguments) -> Change {
    let ServiceArguments { id, title, rest, methods, purposes } = arguments;
    let kind = if rest { ServiceKind::Rest } else { ServiceKind::Grpc };
    Change::PutService(Service { id, title, kind: kind.into(), methods, purposes })
}

fn catalogue_entry(command: CatalogueCommand) -> CatalogueEntry {
    let CatalogueCommand::Add { code, text, text_de, citation } = command;
    CatalogueEntry { code, text, text_de, citation }
}
