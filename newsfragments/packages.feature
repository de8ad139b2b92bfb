Four ways to install (docs/installing): a Debian package with its own environment, user and service (``make deb``), an
image and a compose file with Postfix and MariaDB in contrib/docker, pip with hashes of everything
(``requirements.lock``), a checkout. The wheel is reproducible; ``make sbom`` writes a CycloneDX bill of materials.
