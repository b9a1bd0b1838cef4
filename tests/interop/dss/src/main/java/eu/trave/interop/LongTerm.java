package eu.trave.interop;

import eu.europa.esig.dss.enumerations.Indication;
import eu.europa.esig.dss.model.DSSDocument;
import eu.europa.esig.dss.model.FileDocument;
import eu.europa.esig.dss.spi.DSSUtils;
import eu.europa.esig.dss.spi.validation.CommonCertificateVerifier;
import eu.europa.esig.dss.spi.x509.CommonTrustedCertificateSource;
import eu.europa.esig.dss.validation.SignedDocumentValidator;
import java.io.File;
import java.util.Date;
import java.util.List;

/**
 * What EU DSS says of containers years later, offline, with its own policy: each line of standard input is a container, the
 * time at which it is validated (milliseconds since 1970), the certificates that are trusted, separated by commas, and what DSS
 * shall say: TOTAL_PASSED, or the indication and its sub-indication; separated by tabs, with words for people at the end.
 */
public final class LongTerm {
    private LongTerm() {}

    public static void main(String[] arguments) throws Exception {
        int failed = 0;
        for (String line : new String(System.in.readAllBytes()).split("\n")) {
            String[] asked = line.split("\t");
            String said = said(new FileDocument(asked[0]), new Date(Long.parseLong(asked[1])), asked[2].split(","));
            boolean agrees = said.equals(asked[3]);
            System.out.println((agrees ? "ok   dss: " : "FAIL dss: ") + asked[4] + ": DSS says " + said
                    + (agrees ? "" : ", and was expected to say " + asked[3]));
            failed += agrees ? 0 : 1;
        }
        System.exit(failed == 0 ? 0 : 1);
    }

    private static String said(DSSDocument container, Date at, String[] certificates) throws Exception {
        var trusted = new CommonTrustedCertificateSource();
        for (String certificate : certificates) {
            trusted.addCertificate(DSSUtils.loadCertificate(new File(certificate)));
        }
        // No source of certificates, revocation lists or OCSP answers is set: nothing is fetched.
        var verifier = new CommonCertificateVerifier();
        verifier.setTrustedCertSources(trusted);
        var validator = SignedDocumentValidator.fromDocument(container);
        validator.setCertificateVerifier(verifier);
        validator.setValidationTime(at);
        var report = validator.validateDocument().getSimpleReport();
        List<String> signatures = report.getSignatureIdList();
        if (signatures.size() != 1) {
            return signatures.size() + " signatures";
        }
        String id = signatures.get(0);
        Indication indication = report.getIndication(id);
        var why = report.getSubIndication(id);
        return why == null ? indication.toString() : indication + " " + why;
    }
}
