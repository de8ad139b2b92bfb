Documentation as a site (make docs) and as plain Markdown in docs/: quick start, what Postfix asks and does,
writing a policy, a cookbook, writing a check module, coming from other policy servers, troubleshooting, security,
and every module, option and command; manual pages ppolicy(1) and ppolicy.conf(5). Each listing is run by a test,
each recipe and each table about Postfix with a real Postfix.
