-- Zambezi's two databases in PostgreSQL, each with a role that owns nothing else; both have the password in PGPASSWORD.
-- Run as PostgreSQL's superuser (tools/postgresql does); running it again gives the roles that password.
\set ON_ERROR_STOP on
\getenv password PGPASSWORD
SELECT format('CREATE ROLE %I LOGIN', name) FROM unnest(ARRAY['zambezi', 'orthanc']) name
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
ALTER ROLE zambezi PASSWORD :'password';
ALTER ROLE orthanc PASSWORD :'password';
SELECT format('CREATE DATABASE %I OWNER %I ENCODING ''UTF8'' LC_COLLATE ''C.UTF-8'' LC_CTYPE ''C.UTF-8'' TEMPLATE template0',
              name, name) FROM unnest(ARRAY['zambezi', 'orthanc']) name
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name) \gexec
REVOKE CONNECT ON DATABASE zambezi, orthanc FROM PUBLIC;
