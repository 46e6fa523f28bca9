SELECT fer.is_day_deleted(:facility_id, :capture_day)
