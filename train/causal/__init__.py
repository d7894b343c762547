"""Back-door and front-door interventions, one file per idea of the papers."""
