-- The database of ppolicy on MariaDB or MySQL, and the account that ppolicy uses.
--
-- 1. Replace CHANGE-THIS-PASSWORD below by a password of your own.
-- 2. Where ppolicy runs on other hosts, replace 'localhost' by their address or network, as 'ppolicy'@'10.0.0.%'.
-- 3. Run it as the administrator of the database server:  mariadb -u root -p < ppolicy.sql
-- 4. In ppolicy.conf:
--        database = 'mysql+pymysql://ppolicy@localhost/ppolicy?password_file=/etc/ppolicy/database.password'

CREATE DATABASE IF NOT EXISTS ppolicy CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE USER IF NOT EXISTS 'ppolicy'@'localhost' IDENTIFIED BY 'CHANGE-THIS-PASSWORD';

-- What ppolicy needs in its daily work.
GRANT SELECT, INSERT, UPDATE, DELETE ON ppolicy.* TO 'ppolicy'@'localhost';

-- So that tables appear, and are upgraded, by themselves. Without this line create them with the statements that
-- `ppolicy db create --sql` prints for your configuration; those for the default names are in mariadb.sql.
GRANT CREATE, ALTER, INDEX ON ppolicy.* TO 'ppolicy'@'localhost';

-- Only for the module DumpDataDB with split or retention, and for `ppolicy db import`: they put tables aside.
-- GRANT DROP ON ppolicy.* TO 'ppolicy'@'localhost';
