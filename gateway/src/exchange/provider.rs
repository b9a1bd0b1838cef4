//! The provider's side of an exchange: verify, authorise, log, call. The register hears nothing of what fails before.

use std::pin::pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::HeaderValue;
use hyper::body::Incoming as HyperBody;
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Streaming;
use trave_message_log::Logged;
use trave_proto::conversation::{Conversation, Topic, Verified};
use trave_proto::fault::{Fault, Reason, Side};
use trave_proto::message::{CallerContext, Ending, Method as _};
use trave_proto::schema::transport::{ExchangeRequest, ExchangeResponse, RegisterReached, exchange_response::Answer};
use trave_proto::signature::{Request, Response};

use super::client::in_catalogue;
use super::framing::{Framing, Pieces};
use super::head::{self, EXCHANGE_ID, GrpcHead};
use super::incoming::{Incoming, authenticate, order_fault, still_trusted};
use super::outgoing::{Outgoing, content_of, first_piece, response_envelope};
use super::relayed::{Relay, Relayed};
use super::replay::ReplayError;
use super::{Exchanges, Shared, lock};
use crate::access::Permitted;
use crate::recorder::{Artefact, Evidence, Refused};
use crate::services::{self, Service};
use crate::transport::{Greeted, Session};
