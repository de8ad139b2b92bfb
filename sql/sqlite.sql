-- Tables of the embedded database; made by python -m ppolicy.reference

CREATE TABLE IF NOT EXISTS greylist (
	"key" BLOB NOT NULL, 
	first FLOAT NOT NULL, 
	last FLOAT NOT NULL, 
	count INTEGER NOT NULL, 
	expires FLOAT NOT NULL, 
	sender VARCHAR(255) NOT NULL, 
	recipient VARCHAR(255) NOT NULL, 
	client_address VARCHAR(255) NOT NULL, 
	PRIMARY KEY ("key")
);

CREATE INDEX IF NOT EXISTS greylist_expires ON greylist (expires);
