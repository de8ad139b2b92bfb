-- The tables of modules that need no parameter, with their default names; for those of a configuration
-- ask `ppolicy db create --sql`. Made by python -m ppolicy.reference

CREATE TABLE IF NOT EXISTS dump (
	id BIGINT NOT NULL, 
	"key" VARCHAR(255) NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (id, "key")
);

CREATE TABLE IF NOT EXISTS greylist (
	"key" BLOB NOT NULL, 
	first DOUBLE NOT NULL, 
	last DOUBLE NOT NULL, 
	previous DOUBLE NOT NULL, 
	count INTEGER NOT NULL, 
	expires DOUBLE NOT NULL, 
	sender VARCHAR(512) NOT NULL, 
	recipient VARCHAR(512) NOT NULL, 
	client_address VARCHAR(512) NOT NULL, 
	PRIMARY KEY ("key")
);

CREATE INDEX IF NOT EXISTS greylist_expires ON greylist (expires);

CREATE TABLE IF NOT EXISTS trap (
	"key" BLOB NOT NULL, 
	first DOUBLE NOT NULL, 
	last DOUBLE NOT NULL, 
	previous DOUBLE NOT NULL, 
	count INTEGER NOT NULL, 
	expires DOUBLE NOT NULL, 
	client VARCHAR(512) NOT NULL, 
	trap VARCHAR(512) NOT NULL, 
	PRIMARY KEY ("key")
);

CREATE INDEX IF NOT EXISTS trap_expires ON trap (expires);

CREATE TABLE IF NOT EXISTS trap_clients (
	"key" BLOB NOT NULL, 
	first DOUBLE NOT NULL, 
	last DOUBLE NOT NULL, 
	previous DOUBLE NOT NULL, 
	count INTEGER NOT NULL, 
	expires DOUBLE NOT NULL, 
	client VARCHAR(512) NOT NULL, 
	PRIMARY KEY ("key")
);

CREATE INDEX IF NOT EXISTS trap_clients_expires ON trap_clients (expires);

CREATE TABLE IF NOT EXISTS whois (
	"key" BLOB NOT NULL, 
	value TEXT NOT NULL, 
	expires DOUBLE NOT NULL, 
	address VARCHAR(512) NOT NULL, 
	source VARCHAR(512) NOT NULL, 
	PRIMARY KEY ("key")
);

CREATE INDEX IF NOT EXISTS whois_expires ON whois (expires);

CREATE TABLE IF NOT EXISTS schema_version (
	name VARCHAR(64) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	version INTEGER NOT NULL, 
	PRIMARY KEY (name)
);
