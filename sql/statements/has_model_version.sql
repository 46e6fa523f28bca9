SELECT EXISTS (SELECT FROM fer.model_version WHERE model_version = :model_version)
