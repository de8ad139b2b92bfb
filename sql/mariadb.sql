-- The tables of modules that need no parameter, with their default names; for those of a configuration
-- ask `ppolicy db create --sql`. Made by python -m ppolicy.reference

CREATE TABLE IF NOT EXISTS dump (
	id BIGINT NOT NULL, 
	`key` VARCHAR(255) NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (id, `key`)
)ENGINE=InnoDB CHARSET=utf8mb4 ROW_FORMAT=DYNAMIC COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS greylist (
	`key` BINARY(16) NOT NULL, 
	first DOUBLE NOT NULL, 
	last DOUBLE NOT NULL, 
	previous DOUBLE NOT NULL, 
	count INTEGER NOT NULL, 
	expires DOUBLE NOT NULL, 
	sender VARCHAR(512) NOT NULL, 
	recipient VARCHAR(512) NOT NULL, 
	client_address VARCHAR(512) NOT NULL, 
	PRIMARY KEY (`key`), 
	KEY greylist_expires (expires)
)ENGINE=InnoDB CHARSET=utf8mb4 ROW_FORMAT=DYNAMIC COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS trap (
	`key` BINARY(16) NOT NULL, 
	first DOUBLE NOT NULL, 
	last DOUBLE NOT NULL, 
	previous DOUBLE NOT NULL, 
	count INTEGER NOT NULL, 
	expires DOUBLE NOT NULL, 
	client VARCHAR(512) NOT NULL, 
	trap VARCHAR(512) NOT NULL, 
	PRIMARY KEY (`key`), 
	KEY trap_expires (expires)
)ENGINE=InnoDB CHARSET=utf8mb4 ROW_FORMAT=DYNAMIC COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS trap_clients (
	`key` BINARY(16) NOT NULL, 
	first DOUBLE NOT NULL, 
	last DOUBLE NOT NULL, 
	previous DOUBLE NOT NULL, 
	count INTEGER NOT NULL, 
	expires DOUBLE NOT NULL, 
	client VARCHAR(512) NOT NULL, 
	PRIMARY KEY (`key`), 
	KEY trap_clients_expires (expires)
)ENGINE=InnoDB CHARSET=utf8mb4 ROW_FORMAT=DYNAMIC COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS whois (
	`key` BINARY(16) NOT NULL, 
	value TEXT NOT NULL, 
	expires DOUBLE NOT NULL, 
	address VARCHAR(512) NOT NULL, 
	source VARCHAR(512) NOT NULL, 
	PRIMARY KEY (`key`), 
	KEY whois_expires (expires)
)ENGINE=InnoDB CHARSET=utf8mb4 ROW_FORMAT=DYNAMIC COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS schema_version (
	name VARCHAR(64) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	version INTEGER NOT NULL, 
	PRIMARY KEY (name)
)ENGINE=InnoDB CHARSET=utf8mb4 ROW_FORMAT=DYNAMIC COLLATE utf8mb4_bin;
