-- Who became champion when, without the many decisions that changed nothing.

CREATE INDEX promotions_of_champions ON promotions (model, id DESC) WHERE verdict IN ('promoted', 'rolled-back');
