//! Trust services: certification authority, OCSP responder, CRL, timestamping authority.
