"""What a picture is: where its bytes lie, how it is decoded, clips, cells of tables, the sheet."""
