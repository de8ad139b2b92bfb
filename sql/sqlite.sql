-- Tables of the embedded database; made by python -m ppolicy.reference

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
