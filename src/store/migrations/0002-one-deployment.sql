-- A model has one live deployment at most, and a port too. What earlier versions left behind is put in order first.

UPDATE deployments SET status = 'stopped', detail = 'another one was live' WHERE status = 'live'
  AND id NOT IN (SELECT max(id) FROM deployments WHERE status = 'live' GROUP BY model);
UPDATE deployments SET status = 'stopped', detail = 'another one had its port' WHERE status = 'live'
  AND id NOT IN (SELECT max(id) FROM deployments WHERE status = 'live' GROUP BY port);
UPDATE deployments SET status = 'failed', detail = 'interrupted' WHERE status = 'starting'
  AND id NOT IN (SELECT max(id) FROM deployments WHERE status = 'starting' GROUP BY model);
UPDATE deployments SET status = 'failed', detail = 'interrupted' WHERE status = 'starting'
  AND id NOT IN (SELECT max(id) FROM deployments WHERE status = 'starting' GROUP BY port);
CREATE UNIQUE INDEX deployments_one_of_model ON deployments (model, status) WHERE status IN ('starting', 'live');
CREATE UNIQUE INDEX deployments_one_on_port ON deployments (port, status) WHERE status IN ('starting', 'live');
