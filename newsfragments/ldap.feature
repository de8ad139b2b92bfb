LookupLDAP: several servers, StartTLS and ldaps with verified certificates, a password from a file, time-outs that hold,
connections that are kept and replaced; no value can change the filter. It needs ``pip install ppolicy[ldap]``.
