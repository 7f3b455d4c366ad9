"""What a phase keeps: scores on the validation span, the best evaluation, the temperature."""
