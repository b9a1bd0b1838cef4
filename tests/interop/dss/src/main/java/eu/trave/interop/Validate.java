package eu.trave.interop;

import eu.europa.esig.dss.enumerations.Indication;
import eu.europa.esig.dss.enumerations.SignatureLevel;
import eu.europa.esig.dss.model.DSSDocument;
import eu.europa.esig.dss.model.FileDocument;
import eu.europa.esig.dss.model.InMemoryDocument;
import eu.europa.esig.dss.simplereport.SimpleReport;
import eu.europa.esig.dss.spi.DSSUtils;
import eu.europa.esig.dss.spi.validation.CommonCertificateVerifier;
import eu.europa.esig.dss.spi.x509.CommonTrustedCertificateSource;
import eu.europa.esig.dss.validation.SignedDocumentValidator;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.time.Duration;
import java.time.Instant;
import java.util.Date;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.zip.CRC32;
import java.util.zip.ZipEntry;
import java.util.zip.ZipInputStream;
import java.util.zip.ZipOutputStream;

/**
 * What EU DSS says of a container, offline, with its own policy: the authority and the timestamping authority of the instance
 * are trusted, nothing is fetched. Then one byte of each file in it is changed, and DSS must not pass it any more.
 *
 * <p>Validate AUTHORITY.der TIMESTAMPING.der CONTAINER…
 */
public final class Validate {
    /** When the OCSP responder's certificate has ended, and the signer's has not. */
    private static final Date LATER = Date.from(Instant.now().plus(Duration.ofDays(400)));

    private static int failed;

    private Validate() {}

    public static void main(String[] arguments) throws Exception {
        var trusted = new CommonTrustedCertificateSource();
        for (int i = 0; i < 2; i++) {
            trusted.addCertificate(DSSUtils.loadCertificate(new File(arguments[i])));
        }
        for (int i = 2; i < arguments.length; i++) {
            var file = new FileDocument(arguments[i]);
            whole(trusted, file);
            altered(trusted, file);
        }
        System.exit(failed == 0 ? 0 : 1);
    }

    private static void whole(CommonTrustedCertificateSource trusted, FileDocument file) {
        SimpleReport report = report(trusted, file, new Date());
        List<String> signatures = report.getSignatureIdList();
        boolean one = signatures.size() == 1;
        say(one, "%s has one signature", file.getName());
        if (!one) {
            return;
        }
        String id = signatures.get(0);
        Indication indication = report.getIndication(id);
        say(indication == Indication.TOTAL_PASSED, "DSS says TOTAL_PASSED of %s: %s %s %s", file.getName(),
                indication, report.getSubIndication(id), report.getAdESValidationErrors(id));
        SignatureLevel level = report.getSignatureFormat(id);
        say(level == SignatureLevel.CAdES_BASELINE_LTA, "its signature is of level %s", level);
        var stamps = report.getSignatureTimestamps(id);
        boolean stamped = stamps.size() == 2
                && stamps.stream().allMatch(stamp -> stamp.getIndication() == Indication.PASSED);
        say(stamped, "its timestamp and its archive timestamp are PASSED: %s", report.getBestSignatureTime(id));
        // What is said of the seal and not proved: nobody shall take it for more.
        say(String.valueOf(report.getSignatureQualification(id)).equals("NA"), "it is no qualified signature or seal: %s",
                report.getSignatureQualification(id));
    }

    private static void altered(CommonTrustedCertificateSource trusted, FileDocument file) throws IOException {
        Map<String, byte[]> entries = entries(file);
        for (String name : entries.keySet()) {
            byte[] before = entries.get(name);
            if (name.equals("mimetype") || before.length == 0) {
                continue;
            }
            boolean token = name.endsWith(".tst");
            // In the seal, the signature itself is looked for: some of what stands beside it nothing signs.
            int at = token || name.endsWith(".p7s") ? signature(before) : before.length / 2;
            byte[] after = before.clone();
            after[at] ^= 1;
            var copy = new LinkedHashMap<>(entries);
            copy.put(name, after);
            // The seal needs its archive timestamp only when certificates have ended.
            boolean archived = token || name.contains("ASiCArchiveManifest");
            Date when = archived ? LATER : new Date();
            say(!passes(trusted, zip(copy), when), "with a byte of %s changed, it is not%s", name,
                    archived ? " in 400 days" : "");
        }
        say(passes(trusted, zip(entries), LATER), "unchanged, it is in 400 days");
        var without = new LinkedHashMap<>(entries);
        without.remove("exchange.proof");
        say(!passes(trusted, zip(without), new Date()), "without the proof, it is not");
    }

    private static boolean passes(CommonTrustedCertificateSource trusted, byte[] container, Date at) {
        try {
            SimpleReport report = report(trusted, new InMemoryDocument(container, "altered.asice"), at);
            List<String> signatures = report.getSignatureIdList();
            return !signatures.isEmpty()
                    && signatures.stream().allMatch(id -> report.getIndication(id) == Indication.TOTAL_PASSED);
        } catch (RuntimeException refused) {
            return false;
        }
    }

    private static SimpleReport report(CommonTrustedCertificateSource trusted, DSSDocument document, Date at) {
        // No source of certificates, revocation lists or OCSP answers is set: nothing is fetched.
        var verifier = new CommonCertificateVerifier();
        verifier.setTrustedCertSources(trusted);
        var validator = SignedDocumentValidator.fromDocument(document);
        validator.setCertificateVerifier(verifier);
        validator.setValidationTime(at);
        return validator.validateDocument().getSimpleReport();
    }

    private static Map<String, byte[]> entries(FileDocument file) throws IOException {
        var entries = new LinkedHashMap<String, byte[]>();
        try (var zip = new ZipInputStream(file.openStream())) {
            for (ZipEntry entry = zip.getNextEntry(); entry != null; entry = zip.getNextEntry()) {
                entries.put(entry.getName(), zip.readAllBytes());
            }
        }
        return entries;
    }

    private static byte[] zip(Map<String, byte[]> entries) throws IOException {
        var bytes = new ByteArrayOutputStream();
        try (var zip = new ZipOutputStream(bytes)) {
            for (var one : entries.entrySet()) {
                var entry = new ZipEntry(one.getKey());
                var crc = new CRC32();
                crc.update(one.getValue());
                entry.setMethod(ZipEntry.STORED);
                entry.setSize(one.getValue().length);
                entry.setCrc(crc.getValue());
                zip.putNextEntry(entry);
                zip.write(one.getValue());
                zip.closeEntry();
            }
        }
        return bytes.toByteArray();
    }

    /** Where the signature's value is: found by the library that DSS itself uses. */
    private static int signature(byte[] seal) throws IOException {
        try {
            var data = new org.bouncycastle.cms.CMSSignedData(seal);
            byte[] value = data.getSignerInfos().getSigners().iterator().next().getSignature();
            for (int at = 0; at + value.length <= seal.length; at++) {
                if (java.util.Arrays.equals(seal, at, at + value.length, value, 0, value.length)) {
                    return at + value.length / 2;
                }
            }
            throw new IOException("the signature is not in the seal");
        } catch (org.bouncycastle.cms.CMSException error) {
            throw new IOException(error);
        }
    }

    private static void say(boolean holds, String what, Object... values) {
        System.out.println((holds ? "ok   dss: " : "FAIL dss: ") + String.format(what, values));
        failed += holds ? 0 : 1;
    }
}
