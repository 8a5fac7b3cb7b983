-- Builds are found by who started them, by what happened, and by the words of their titles, however many there are.

ALTER TABLE builds ADD COLUMN actor TEXT GENERATED ALWAYS AS (json_extract(request, '$.actor')) VIRTUAL;
CREATE INDEX builds_by_actor ON builds (project, actor, id DESC);
CREATE INDEX builds_by_event ON builds (project, event, id DESC);

-- The project as one word of its own letters, so that no other project's name is like it.
CREATE VIRTUAL TABLE builds_words USING fts5(project, words, content = '', tokenize = 'porter unicode61');
INSERT INTO builds_words (rowid, project, words)
  SELECT id, hex(project), coalesce(json_extract(request, '$.title'), '') || ' ' || coalesce(actor, '') FROM builds;
CREATE TRIGGER builds_words_new AFTER INSERT ON builds BEGIN
  INSERT INTO builds_words (rowid, project, words)
    VALUES (new.id, hex(new.project), coalesce(json_extract(new.request, '$.title'), '') || ' ' || coalesce(new.actor, ''));
END;
-- What is taken out has to be named as it was put in: a build keeps its title and its person.
CREATE TRIGGER builds_words_gone AFTER DELETE ON builds BEGIN
  INSERT INTO builds_words (builds_words, rowid, project, words)
    VALUES ('delete', old.id, hex(old.project), coalesce(json_extract(old.request, '$.title'), '') || ' ' || coalesce(old.actor, ''));
END;
