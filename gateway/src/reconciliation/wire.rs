//! Asking another security server, over a connection of the exchanges. What it answers is bounded, and read strictly.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::Instant;
use tonic::{Code, Status};
use trave_host::client::Channel;
use trave_host::stubs::transport::peer_service_client::PeerServiceClient;
use trave_proto::digest::Digest;
use trave_proto::identifier::{ExchangeId, ServerId};
use trave_proto::reconciliation::{Challenge, NONCE, Name, Period, Summary};
use trave_proto::schema::transport::{
    CompareRecordsRequest, ExchangeState, FetchMessageRequest, FetchMessageResponse, ListRecordsRequest,
    ListedRecord, RecordRange, TellExchangesRequest,
};

use super::compare::{CompareError, Other, Page, Wrong};
use super::desk::{EXCHANGES, PAGE};
use super::records::{Bounds, Records};

/// For one answer: the other server may have to read much of its log.
const PATIENCE: Duration = Duration::from_secs(120);
/// For all answers about one hour, and so for one comparison.
pub(super) const OVERALL: Duration = Duration::from_secs(300);

/// Another security server, asked about one hour.
#[derive(Debug)]
pub(crate) struct Line {
    client: PeerServiceClient<Channel>,
    period: Period,
    /// This server and the other one.
    between: (ServerId, ServerId),
    /// What the other server gave this one to prove it with that it knows the list.
    theirs: Option<[u8; NONCE]>,
    /// What is not answered by then, is not waited for.
    until: Instant,
}

impl Line {
    /// To the second of these servers from the first.
    pub(crate) fn new(
        client: PeerServiceClient<Channel>,
        period: Period,
        between: (ServerId, ServerId),
    ) -> Self {
        Self { client, period, between, theirs: None, until: Instant::now() + OVERALL }
    }

    /// A message that this log has lost.
    pub(crate) async fn fetch(
        &mut self,
        (name, digest): (Name, Digest),
    ) -> Result<FetchMessageResponse, CompareError> {
        let request = FetchMessageRequest { name: name.to_bytes(), manifest_digest: digest.to_bytes() };
        in_time(self.until, self.client.fetch_message(request)).await
    }

    /// How the other log says that these exchanges stand.
    pub(crate) async fn states(
        &mut self,
        exchanges: &[ExchangeId],
    ) -> Result<BTreeMap<ExchangeId, ExchangeState>, CompareError> {
        let mut told = BTreeMap::new();
        for some in exchanges.chunks(EXCHANGES) {
            let exchange_ids = some.iter().map(|id| Bytes::copy_from_slice(id.as_bytes())).collect();
            let request = TellExchangesRequest { exchange_ids };
            let answer = in_time(self.until, self.client.tell_exchanges(request)).await?;
            if answer.states.len() != some.len() {
                return Err(CompareError::Malformed("it tells of other exchanges than it was asked for"));
            }
            told.extend(some.iter().copied().zip(answer.states()));
        }
        Ok(told)
    }
}

impl Other for Line {
    async fn challenge(&mut self, own: &Records) -> Result<Option<Wrong>, CompareError> {
        let mut nonce = [0; NONCE];
        SystemRandom::new().fill(&mut nonce).map_err(|_| CompareError::NoRandom)?;
        let request = CompareRecordsRequest {
            period: Some(self.period.to_schema()),
            ranges: vec![RecordRange::default()],
            own: None,
            nonce: Bytes::copy_from_slice(&nonce),
            proof: Bytes::new(),
        };
        let answer = in_time(self.until, self.client.compare_records(request)).await?;
        let [there] = &answer.summaries[..] else {
            return Err(CompareError::Malformed("it answers other ranges than it was asked for"));
        };
        let there = Summary::read(there).ok_or(CompareError::Malformed("a digest has not 32 bytes"))?;
        let (asker, answerer) = (&self.between.0, &self.between.1);
        let challenge = Challenge { nonce: &nonce, asker, answerer, period: self.period };
        let here = own.answering(&challenge);
        let theirs = <[u8; NONCE]>::try_from(&answer.nonce[..]);
        self.theirs = Some(theirs.map_err(|_| CompareError::Malformed("its nonce has not 32 bytes"))?);
        Ok((there != here).then_some(Wrong { there, here }))
    }

    async fn summaries(
        &mut self,
        ranges: &[Bounds],
        own: Option<&Records>,
    ) -> Result<Vec<Summary>, CompareError> {
        // It can be repeated to nobody: the nonce is the other server's, and this one stands in it as who answers.
        let proof = |own: &Records| {
            let nonce = &self.theirs.take().ok_or(CompareError::Malformed("it gave no nonce"))?;
            let (answerer, asker) = (&self.between.0, &self.between.1);
            Ok(own.answering(&Challenge { nonce, asker, answerer, period: self.period }).digest.to_bytes())
        };
        let proof = own.map(proof).transpose()?.unwrap_or_default();
        let request = CompareRecordsRequest {
            period: Some(self.period.to_schema()),
            ranges: ranges.iter().map(range).collect(),
            own: own.map(|own| own.summary(&Bounds::default()).to_schema()),
            nonce: Bytes::new(),
            proof,
        };
        let answer = in_time(self.until, self.client.compare_records(request)).await?;
        let summaries: Option<Vec<_>> = answer.summaries.iter().map(Summary::read).collect();
        summaries.ok_or(CompareError::Malformed("a digest has not 32 bytes"))
    }

    async fn list(&mut self, bounds: &Bounds) -> Result<Page, CompareError> {
        let request =
            ListRecordsRequest { period: Some(self.period.to_schema()), range: Some(range(bounds)) };
        let answer = in_time(self.until, self.client.list_records(request)).await?;
        let records: Option<Vec<_>> = answer.records.iter().map(listed).collect();
        let records = records.ok_or(CompareError::Malformed("a name or digest has another length"))?;
        check(&records, bounds, self.period)?;
        Ok(Page { records, more: answer.more })
    }
}

type Listed = ((Name, Digest), bool);

fn listed(record: &ListedRecord) -> Option<Listed> {
    let name = Name::from_slice(&record.name)?;
    Some(((name, Digest::from_slice(&record.manifest_digest)?), record.sent))
}

/// Few, in order, within what was asked for, of exchanges that began in that hour.
fn check(records: &[Listed], bounds: &Bounds, period: Period) -> Result<(), CompareError> {
    if records.len() > PAGE * 2 {
        return Err(CompareError::Malformed("a page is longer than one may be"));
    }
    let begun = |name: &Name| name.exchange().is_ok_and(|id| period.times().contains(&id.time()));
    if records.iter().any(|((name, _), _)| !bounds.contains(name) || !begun(name)) {
        return Err(CompareError::Malformed("it lists what it was not asked for"));
    }
    if records.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
        return Err(CompareError::Malformed("its list is not in order"));
    }
    Ok(())
}

fn range(bounds: &Bounds) -> RecordRange {
    let name = |name: Option<Name>| name.map(Name::to_bytes).unwrap_or_default();
    RecordRange { from: name(bounds.from), to: name(bounds.to) }
}

async fn in_time<T>(
    until: Instant,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, CompareError> {
    match tokio::time::timeout_at(until.min(Instant::now() + PATIENCE), call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) if status.code() == Code::Unimplemented => Err(CompareError::Unknown),
        Ok(Err(status)) => Err(CompareError::Call(Box::new(status))),
        Err(_) => Err(CompareError::TooLate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trave_proto::clock::Time;

    fn named(period: Period, n: u8) -> Name {
        let mut bytes = [1; Name::LEN];
        bytes[..16].copy_from_slice(ExchangeId::new(period.begin(), &[n; 10]).as_bytes());
        Name::from_slice(&bytes).unwrap()
    }

    #[test]
    fn a_list_is_of_what_was_asked_for_in_order() {
        let hour = Period::of(Time::from_millis(1_795_255_200_000));
        let name = |n: u8| named(hour, n);
        let list = |names: &[u8]| -> Vec<Listed> {
            names.iter().map(|n| ((name(*n), Digest::of(b"")), true)).collect()
        };
        let bounds = Bounds { from: Some(name(2)), to: Some(name(5)) };
        assert!(check(&list(&[2, 3, 4]), &bounds, hour).is_ok());
        for wrong in [&[1, 2][..], &[4, 5], &[3, 2], &[3, 3]] {
            assert!(check(&list(wrong), &bounds, hour).is_err(), "{wrong:?}");
        }
        assert!(check(&list(&[3]), &Bounds::default(), hour).is_ok());
        assert!(check(&list(&[3]), &Bounds::default(), hour.next()).is_err(), "of another hour");
        let endless: Vec<_> =
            std::iter::successors(Some(name(2)), Name::successor).take(PAGE * 2 + 1).collect();
        let endless: Vec<_> = endless.into_iter().map(|name| ((name, Digest::of(b"")), true)).collect();
        assert!(check(&endless, &Bounds::default(), hour).is_err());
    }
}
