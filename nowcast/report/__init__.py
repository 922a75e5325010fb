"""What people look at: tables, sentences, pictures, report.html."""
