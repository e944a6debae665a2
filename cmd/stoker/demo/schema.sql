-- One row an article. version is the number of the last edit that changed it, 0 for none;
-- bodies come last, so that lists need not read past them.
CREATE TABLE articles (
  slug    TEXT PRIMARY KEY,
  title   TEXT NOT NULL,
  updated TEXT NOT NULL,
  version INTEGER NOT NULL,
  body    TEXT NOT NULL
);
CREATE INDEX articles_latest ON articles (version DESC, updated DESC, slug);

-- An article's tags and authors, in order.
CREATE TABLE labels (
  kind  TEXT NOT NULL, -- 'tag' or 'author'
  name  TEXT NOT NULL,
  slug  TEXT NOT NULL,
  place INTEGER NOT NULL,
  PRIMARY KEY (kind, name, slug)
) WITHOUT ROWID;
CREATE INDEX labels_of ON labels (slug, kind, place);

-- The number of the last edit that changed what an invalidation tag labels.
CREATE TABLE touched (
  tag     TEXT PRIMARY KEY,
  version INTEGER NOT NULL
) WITHOUT ROWID;

-- What the JSON of one article shows.
CREATE VIEW posts AS
  SELECT slug, title, substr(body, 1, 280) AS summary, updated, version,
    coalesce((SELECT group_concat(name, ',') FROM (SELECT name FROM labels l WHERE l.slug = a.slug AND kind = 'tag' ORDER BY place)), '') AS tags,
    coalesce((SELECT group_concat(name, ',') FROM (SELECT name FROM labels l WHERE l.slug = a.slug AND kind = 'author' ORDER BY place)), '') AS authors
  FROM articles a;
